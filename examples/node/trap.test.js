'use strict'
const assert = require('node:assert')
const { EventEmitter } = require('node:events')
const { test } = require('node:test')
const { Service, decode } = require('./wire')
const { plugin, Trap } = require('./trap')

test('the trap takes no mail', () => {
  const trap = new Trap({ trap: 'spamtrap' })
  for (const [address, action] of [['spamtrap@a.example', 'ACTION_REJECT'], ['ann@a.example', 'ACTION_CONTINUE'], ['', 'ACTION_CONTINUE']]) {
    assert.equal(trap.rcpt({ recipient: { address } }).verdict.action, action, address)
  }
})

test('a wrong configuration is told with its place', () => {
  assert.deepEqual(decode('{}', plugin.schema), { trap: 'spamtrap' })
  for (const [text, path] of [['{"tarp": "x"}', ['tarp']], ['{"trap": 1}', ['trap']], ['[]', []], ['{', []], ['null', []]]) {
    assert.throws(() => decode(text, plugin.schema), e => { assert.deepEqual(e.path, path); return true }, text)
  }
})

// stream is the server's end of Calls.
function stream () {
  const s = new EventEmitter()
  s.answers = []
  s.write = batch => s.answers.push(...batch.responses)
  s.end = () => {}
  return s
}

test('each request is answered once, whatever becomes of it', async () => {
  const s = new Service({ ...plugin, create: () => ({ rcpt: async (_c, wanted) => { await new Promise(resolve => setTimeout(resolve, 30)); if (wanted()) throw new Error('boom') } }) })
  s.configure({ request: { config_json: Buffer.from('{}') } }, () => {})
  const calls = stream()
  s.calls(calls)
  const rcpt = { call: 'rcpt', rcpt: {} }
  calls.emit('data', { requests: [{ seq: '1', ...rcpt }, { seq: '2', timeout_ms: 5, ...rcpt }, { seq: '3', ...rcpt }, { seq: '4' }], cancel: ['3', '99'] })
  for (let i = 0; i < 1000 && calls.answers.length < 4; i++) await new Promise(resolve => setTimeout(resolve, 10))
  const kinds = Object.fromEntries(calls.answers.map(a => [a.seq, a.error.kind]))
  assert.deepEqual(kinds, { 1: 'ERROR_KIND_PANIC', 2: 'ERROR_KIND_TIMEOUT', 3: 'ERROR_KIND_TIMEOUT', 4: 'ERROR_KIND_UNSUPPORTED' })
  assert.equal(calls.answers.length, 4)
})
