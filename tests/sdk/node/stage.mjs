// Starts what the tests talk to: the simulator, and Weir in front of it. Each is ended by its own process id.

import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
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
  const config = join(folder, 'weir.yaml')
  writeFileSync(config, configuration(simulator.addresses.simulator, join(folder, 'data')))
  const weir = await launch(['serve', '--config', config], ['api', 'admin'], {
    SIM_OPENAI_KEY: 'sk-simulated',
    SIM_ANTHROPIC_KEY: 'sk-ant-simulated',
  }).catch(async (error) => {
    await simulator.stop()
    throw error
  })
  const stop = async () => {
    const code = await weir.stop()
    await simulator.stop()
    rmSync(folder, { recursive: true, force: true })
    return code
  }
  return { url: weir.addresses.api, simulator: simulator.addresses.simulator, stop }
}

function configuration(simulator, data) {
  const hash = (_, key) => `sha256:${createHash('sha256').update(key).digest('hex')}`
  return readFileSync(new URL('../weir.yaml', import.meta.url), 'utf8')
    .replaceAll('{sim}', simulator)
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
