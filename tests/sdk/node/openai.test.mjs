// The official OpenAI client for Node, with an OpenAI and an Anthropic provider behind Weir.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import OpenAI from 'openai'
import { zodResponseFormat } from 'openai/helpers/zod'
import { z } from 'zod'
import { KEY, PROVIDERS, start } from './stage.mjs'

const says = (content) => [{ role: 'user', content }]
const tool = (name, field) => ({
  type: 'function',
  function: {
    name,
    parameters: { type: 'object', properties: { [field]: { type: 'string' } }, required: [field] },
  },
})
const TOOLS = [tool('weather', 'city'), tool('clock', 'zone')]

let stage
let client
before(async () => {
  stage = await start()
  client = new OpenAI({ baseURL: `${stage.url}/v1`, apiKey: KEY, maxRetries: 0 })
})
after(async () => assert.equal(await stage?.stop(), 0, 'Weir drains and exits with 0 on SIGTERM'))

for (const { name, model } of PROVIDERS) {
  describe(name, () => {
    test('a whole answer has text, finish and usage', async () => {
      const answer = await client.chat.completions.create({ model, messages: says('hello there') })
      assert.equal(answer.choices[0].message.content, 'You said: hello there')
      assert.equal(answer.choices[0].finish_reason, 'stop')
      assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)
    })

    test('a stream is the whole answer in pieces and ends with its usage', async () => {
      const stream = await client.chat.completions.create({
        model,
        messages: says('one two three'),
        stream: true,
        stream_options: { include_usage: true },
      })
      const chunks = await Array.fromAsync(stream)
      const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('')
      assert.equal(text, 'You said: one two three')
      assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1)
      assert.deepEqual(chunks.at(-1).choices, [])
      assert.ok(chunks.at(-1).usage.completion_tokens > 0)
    })

    test('parallel calls keep their ids and arguments through the stream helper', async () => {
      const stream = client.chat.completions.stream({ model, messages: says('weather clock weather'), tools: TOOLS })
      const answer = await stream.finalChatCompletion()
      const calls = answer.choices[0].message.tool_calls
      assert.deepEqual(calls.map((call) => call.function.name), ['weather', 'clock', 'weather'])
      assert.equal(new Set(calls.map((call) => call.id)).size, 3)
      for (const call of calls) assert.equal(typeof JSON.parse(call.function.arguments), 'object')
      assert.equal(answer.choices[0].finish_reason, 'tool_calls')
    })

    test('runTools goes through the loop to the answer', async () => {
      const weather = { ...TOOLS[0].function, description: 'the weather', parse: JSON.parse, function: () => 'sunny' }
      const runner = client.chat.completions.runTools({
        model,
        messages: says('weather please'),
        tools: [{ type: 'function', function: weather }],
      })
      assert.match(await runner.finalContent(), /sunny/)
    })

    test('a nested schema is answered as it says', async () => {
      const Street = z.object({ name: z.string(), number: z.number().int() })
      const Person = z.object({ name: z.string(), home: Street, work: Street.nullable() })
      const answer = await client.chat.completions.parse({
        model,
        messages: says('who is Ada'),
        response_format: zodResponseFormat(Person, 'person'),
      })
      assert.equal(typeof answer.choices[0].message.parsed.home.number, 'number')
    })

    test('a provider that is limited is a RateLimitError with its delay', async () => {
      const ask = client.chat.completions.create({ model: `${model}~status=429~retry_after=7`, messages: says('hi') })
      await assert.rejects(ask, (error) => {
        assert.ok(error instanceof OpenAI.RateLimitError)
        assert.equal(error.code, 'provider_rate_limited')
        assert.equal(error.headers.get('retry-after'), '7')
        assert.equal(error.headers.get('x-weir-error'), 'provider_limit')
        return true
      })
    })

    test('a stream that is cut is an exception and not an end', async () => {
      const stream = await client.chat.completions.create({
        model: `${model}~events=9~cut=4`,
        messages: says('a b c d e f g h i'),
        stream: true,
      })
      let text = ''
      await assert.rejects(async () => {
        for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? ''
      })
      assert.equal(text.split(/\s+/).filter(Boolean).length, 4)
    })
  })
}

describe('answers of many blocks', () => {
  for (const name of ['blocks-in-turn', 'server-tools', 'citations', 'thinking-stream', 'parallel-tools-stream']) {
    test(`the stream helper gathers what the whole answer says of ${name}`, async () => {
      const ask = { model: `played/${name}`, messages: says('go') }
      const whole = await client.chat.completions.create(ask)
      const streamed = await client.chat.completions.stream(ask).finalChatCompletion()
      assert.equal(streamed.choices[0].finish_reason, whole.choices[0].finish_reason)
      assert.deepEqual(meaning(streamed.choices[0].message), meaning(whole.choices[0].message))
    })
  }

  // A message without what means nothing, its arguments as what they mean. Of `reasoning_content`, which is not OpenAI's,
  // this client keeps the last piece only; the blocks have all of it.
  function meaning({ reasoning_content: _, ...message }) {
    const calls = message.tool_calls?.map((call) => ({
      ...call,
      function: { name: call.function.name, arguments: JSON.parse(call.function.arguments) },
    }))
    const said = Object.entries({ ...message, tool_calls: calls }).filter(([, value]) => value?.length > 0)
    return JSON.parse(JSON.stringify(Object.fromEntries(said)))
  }
})

describe('errors', () => {
  const cases = [
    ['a wrong key', { apiKey: 'sk-weir-nobody' }, 'gpt-main', OpenAI.AuthenticationError, 'invalid_api_key'],
    ['an unknown model', {}, 'nobody-knows-this', OpenAI.NotFoundError, 'model_not_found'],
    ['a forbidden model', { apiKey: 'sk-weir-narrow' }, 'openai/gpt-5.5', OpenAI.PermissionDeniedError, 'model_not_allowed'],
    ['a silent provider', {}, 'gpt-slow', OpenAI.InternalServerError, 'provider_timeout'],
  ]
  for (const [what, options, model, type, code] of cases) {
    test(`${what} is a ${type.name} with code ${code}`, async () => {
      const ask = client.withOptions(options).chat.completions.create({ model, messages: says('hello') })
      await assert.rejects(ask, (error) => error instanceof type && error.code === code)
    })
  }
})

describe('embeddings and models', () => {
  for (const model of ['embed-small', 'embed-floats', 'embed-base64']) {
    test(`${model} has the right length by the client's default and as floats`, async () => {
      const binary = await client.embeddings.create({ model, input: 'hello' })
      const floats = await client.embeddings.create({ model, input: 'hello', encoding_format: 'float' })
      assert.equal(binary.data[0].embedding.length, 1536)
      assert.equal(floats.data[0].embedding.length, 1536)
      assert.ok(binary.data[0].embedding.every((n, i) => Math.abs(n - floats.data[0].embedding[i]) < 1e-6))
    })
  }

  test('the list of models holds what the key may call', async () => {
    const names = (await Array.fromAsync(client.models.list())).map((model) => model.id)
    assert.ok(names.includes('gpt-main') && !names.some((name) => name.includes('*')))
    assert.equal((await client.models.retrieve('gpt-main')).id, 'gpt-main')
  })
})
