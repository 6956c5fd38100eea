// Vercel's AI SDK, through its OpenAI and its OpenAI-compatible provider.

import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { APICallError, embedMany, generateObject, generateText, isStepCount, Output, streamText, tool } from 'ai'
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { z } from 'zod'
import { KEY, PROVIDERS, start } from './stage.mjs'

let stage
let openai
let compatible
before(async () => {
  stage = await start()
  const baseURL = `${stage.url}/v1`
  openai = createOpenAI({ baseURL, apiKey: KEY })
  compatible = createOpenAICompatible({ name: 'weir', baseURL, apiKey: KEY, includeUsage: true, supportsStructuredOutputs: true })
})
after(async () => assert.equal(await stage?.stop(), 0, 'Weir drains and exits with 0 on SIGTERM'))

const weather = tool({
  description: 'Tells the weather of a city.',
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `sunny in ${city}`,
})

for (const { name, model } of PROVIDERS) {
  for (const [kind, chat] of [
    ['@ai-sdk/openai', (id) => openai.chat(id)],
    ['@ai-sdk/openai-compatible', (id) => compatible(id)],
  ]) {
    describe(`${kind} to ${name}`, () => {
      const ask = (more) => ({ model: chat(model), maxRetries: 0, ...more })

      test('generateText answers with usage', async () => {
        const answer = await generateText(ask({ prompt: 'hello there' }))
        assert.equal(answer.text, 'You said: hello there')
        assert.equal(answer.finishReason, 'stop')
        assert.ok(answer.usage.inputTokens > 0 && answer.usage.outputTokens > 0)
      })

      test('streamText gives the same text in pieces, with usage', async () => {
        const answer = streamText(ask({ prompt: 'one two three' }))
        const pieces = await Array.fromAsync(answer.textStream)
        assert.equal(pieces.join(''), 'You said: one two three')
        assert.ok(pieces.length > 1)
        assert.ok((await answer.usage).outputTokens > 0)
      })

      test('a tool is called and its result answered', async () => {
        const answer = await generateText(ask({ prompt: 'weather please', tools: { weather }, stopWhen: isStepCount(2) }))
        assert.equal(answer.steps[0].toolCalls[0].toolName, 'weather')
        assert.match(answer.text, /sunny in/)
      })

      test('a tool is called and its result answered in a stream', async () => {
        const answer = streamText(ask({ prompt: 'weather please', tools: { weather }, stopWhen: isStepCount(2) }))
        assert.match((await Array.fromAsync(answer.textStream)).join(''), /sunny in/)
      })

      test('an object comes as its schema says', async () => {
        const schema = z.object({ title: z.string(), place: z.object({ name: z.string(), size: z.number() }) })
        const answer = await generateText(ask({ prompt: 'rate Rome', output: Output.object({ schema }) }))
        assert.equal(typeof answer.output.place.size, 'number')
        const { object } = await generateObject(ask({ prompt: 'rate Rome', schema }))
        assert.equal(typeof object.place.name, 'string')
      })

      test('a refusal is an APICallError with its status', async () => {
        const ask = generateText({ model: chat(`${model}~status=400`), maxRetries: 0, prompt: 'hello' })
        await assert.rejects(ask, (error) => APICallError.isInstance(error) && error.statusCode === 400)
      })

      test('a stream that is cut ends with an error', async () => {
        const errors = []
        const answer = streamText({
          model: chat(`${model}~events=9~cut=4`),
          maxRetries: 0,
          prompt: 'a b c d e f g h i',
          onError: ({ error }) => errors.push(error),
        })
        await answer.consumeStream({ onError: (error) => errors.push(error) })
        assert.ok(errors.length > 0, 'the half answer passed for a whole one')
      })
    })
  }
}

test('embedMany gives a vector for each text', async () => {
  for (const embedding of [openai.embedding('embed-small'), compatible.embeddingModel('embed-small')]) {
    const { embeddings } = await embedMany({ model: embedding, values: ['hello', 'there'], maxRetries: 0 })
    assert.deepEqual(embeddings.map((vector) => vector.length), [1536, 1536])
  }
})
