// Starts what the tests talk to: the simulator and a player of fixtures, and Weir in front of them. Each is ended by its own process id.

import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createServer } from 'node:http'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const repository = new URL('../../..', import.meta.url).pathname
const binary = process.env.WEIR_BIN ?? join(repository, 'target/debug/weir')
const START_MS = 30_000

export const KEY = 'sk-weir-sdk'
export const PROVIDERS = [
  { name: 'openai', model: 'openai/gpt-5.5' },
  { name: 'claude', model: 'claude/claude-sonnet-4-6' },
]

// The simulator and Weir; `stop` ends both and says what Weir's exit code was.
export async function start() {
  const folder = mkdtempSync(join(tmpdir(), 'weir-sdk-'))
  const simulator = await launch(['simulate', '--listen', '127.0.0.1:0'], ['simulator'])
  const player = await play()
  const config = join(folder, 'weir.yaml')
  writeFileSync(config, configuration(simulator.addresses.simulator, player.url, join(folder, 'data')))
  const weir = await launch(['serve', '--config', config], ['api', 'admin'], {
    SIM_OPENAI_KEY: 'sk-simulated',
    SIM_ANTHROPIC_KEY: 'sk-ant-simulated',
  }).catch(async (error) => {
    player.stop()
    await simulator.stop()
    throw error
  })
  const stop = async () => {
    const code = await weir.stop()
    player.stop()
    await simulator.stop()
    rmSync(folder, { recursive: true, force: true })
    return code
  }
  return { url: weir.addresses.api, simulator: simulator.addresses.simulator, stop }
}

// A fixture of Anthropic's: what it says as `reply`, `stream` and so on.
function fixture(name, file) {
  return readFileSync(join(repository, 'tests/fixtures/anthropic', name, `${file}.native`), 'utf8')
}

// A provider that answers with the fixture that the model names.
async function play() {
  const server = createServer(async (request, response) => {
    const { model, stream } = JSON.parse(Buffer.concat(await Array.fromAsync(request)))
    const [file, type] = stream ? ['stream', 'text/event-stream'] : ['reply', 'application/json']
    response.writeHead(200, { 'content-type': type }).end(fixture(model, file))
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const stop = () => {
    server.close()
    server.closeAllConnections()
  }
  return { url: `http://127.0.0.1:${server.address().port}`, stop }
}

function configuration(simulator, player, data) {
  const hash = (_, key) => `sha256:${createHash('sha256').update(key).digest('hex')}`
  return readFileSync(new URL('../weir.yaml', import.meta.url), 'utf8')
    .replaceAll('{sim}', simulator)
    .replaceAll('{player}', player)
    .replaceAll('{data}', data)
    .replaceAll(/\{hash:([^}]+)\}/g, hash)
}

// Resolves once the server has said all its addresses.
function launch(args, announces, environment = {}) {
  const child = spawn(binary, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...environment } })
  const addresses = {}
  let output = ''
  const exited = new Promise((resolve) => child.once('exit', (code, signal) => resolve(code ?? signal)))
  const stop = () => {
    child.kill('SIGTERM')
    return exited
  }
  return new Promise((resolve, reject) => {
    const fail = (why) => {
      clearTimeout(timer)
      child.kill('SIGKILL')
      reject(new Error(`weir ${args.join(' ')}: ${why}\n${output}`))
    }
    const timer = setTimeout(() => fail(`said only ${Object.keys(addresses)} within ${START_MS} ms`), START_MS)
    child.once('error', (error) => fail(`${binary}: ${error.message}`))
    exited.then((code) => fail(`ended with ${code}`))
    child.stderr.on('data', (bytes) => (output = (output + bytes).slice(-20_000)))
    child.stdout.on('data', (bytes) => {
      output = (output + bytes).slice(-20_000)
      for (const [, what, url] of output.matchAll(/weir: (\w+) on (http:\/\/\S+)/g)) addresses[what] ??= url
      if (announces.every((what) => what in addresses)) {
        clearTimeout(timer)
        resolve({ addresses, stop })
      }
    })
  })
}
