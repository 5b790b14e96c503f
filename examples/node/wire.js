'use strict'
// What a plugin of the Pabal mail server has to do, whatever it is for: the handshake, the services of plugin.proto, calls
// in batches, and the end. `serve` is all that trap.js uses of it. It is written against the contract alone: sdk/README.md,
// "the wire", numbers the steps.

const fs = require('node:fs')
const net = require('node:net')
const os = require('node:os')
const path = require('node:path')
const grpc = require('@grpc/grpc-js')
const loader = require('@grpc/proto-loader')
const protobuf = require('protobufjs')

const E = { FAILED: 'ERROR_KIND_FAILED', PANIC: 'ERROR_KIND_PANIC', UNSUPPORTED: 'ERROR_KIND_UNSUPPORTED', TIMEOUT: 'ERROR_KIND_TIMEOUT' }
// The kind that each call is asked of, where the two have different names.
const KINDS = { authenticate: 'authenticator', lookup: 'directory', convert: 'converter', observe: 'observer', route: 'router' }

// proto is the contract. The bundler puts its text into the program.
function proto () {
  const text = require('../../sdk/pluginv1/plugin.proto')
  // Bytes stay bytes, numbers of 64 bits are strings, and a field that is not set is its zero value.
  const options = { keepCase: true, longs: String, enums: String, defaults: true, oneofs: true }
  return grpc.loadPackageDefinition(loader.fromJSON(protobuf.parse(text, { keepCase: true }).root.toJSON(), options)).mta.plugin.v1
}

// Three small services of go-plugin and of gRPC, whose messages are written by hand: { SERVING } and nothing.
const raw = b => b
const method = (name, extra) => ({
  path: name, requestStream: false, responseStream: false, requestSerialize: raw, requestDeserialize: raw, responseSerialize: raw, responseDeserialize: raw, ...extra
})
const health = { Check: method('/grpc.health.v1.Health/Check') }
const controller = { Shutdown: method('/plugin.GRPCController/Shutdown') }
const stdio = { StreamStdio: method('/plugin.GRPCStdio/StreamStdio', { responseStream: true }) }

function log (level, message) {
  fs.writeSync(2, JSON.stringify({ '@level': level, '@message': String(message) }) + '\n')
}

// Service answers the calls of the server with the methods of one value.
class Service {
  constructor (plugin) {
    this.plugin = plugin
    this.value = null
    this.running = 0
    this.idle = [] // who waits for running to be 0
    this.drained = false
  }

  kinds () {
    return this.plugin.calls.map(call => ({ name: KINDS[call] || call, header: call === 'message', body: call === 'message' }))
  }

  describe (_call, done) {
    const { name, version, doc, schema } = this.plugin
    done(null, { name, version, doc, sdk: 'none', kinds: this.kinds(), schema_json: Buffer.from(JSON.stringify(schema)) })
  }

  configure (call, done) {
    const { config_json: json, validate_only: only } = call.request
    if (this.value) return done({ code: grpc.status.FAILED_PRECONDITION, details: 'the plugin has been configured already' })
    try {
      const config = decode(json.length ? json.toString() : '{}', this.plugin.schema)
      if (!only) this.value = this.plugin.create(config)
      done(null, { kinds: this.kinds() })
    } catch (e) {
      done(null, { diagnostics: [{ severity: 'SEVERITY_ERROR', path: e.path || [], summary: e.message }] })
    }
  }

  // calls is the one stream for the whole life. Each request is answered once: by its method, or because its time is up, or
  // because nobody waits any more.
  calls (stream) {
    const open = new Map() // what ends each call that runs
    let waiting = []
    const flush = () => {
      if (waiting.length) stream.write({ responses: waiting })
      waiting = []
    }
    const finish = (seq, response) => {
      const entry = open.get(seq)
      if (!entry) return
      open.delete(seq)
      clearTimeout(entry.timer)
      if (waiting.push({ ...response, seq }) === 1) setImmediate(flush) // answers that come together travel together
    }
    stream.on('data', batch => {
      for (const request of batch.requests) {
        const giveUp = () => finish(request.seq, failure(E.TIMEOUT, ''))
        open.set(request.seq, { timer: request.timeout_ms ? setTimeout(giveUp, request.timeout_ms) : undefined })
        this.answer(request, () => open.has(request.seq)).then(response => finish(request.seq, response))
      }
      for (const seq of batch.cancel) finish(seq, failure(E.TIMEOUT, ''))
    })
    stream.on('error', () => {})
    stream.on('end', () => { flush(); stream.end() })
  }

  // large is one call whose content comes in chunks.
  large (stream) {
    const chunks = []
    let request
    stream.on('data', frame => {
      if (frame.part === 'request') request = frame.request
      if (frame.part === 'chunk') chunks.push(frame.chunk)
    })
    stream.on('error', () => {})
    stream.on('end', async () => {
      const content = request?.[request.call]?.content
      if (!content) { // a server that is broken: it is this stream alone that ends
        stream.emit('error', { code: grpc.status.INVALID_ARGUMENT, details: 'no request with a content' })
        return
      }
      content.data = Buffer.concat(chunks)
      stream.write({ response: { ...await this.answer(request, () => !stream.cancelled), seq: request.seq } })
      stream.end()
    })
  }

  // answer always has one: what goes wrong is an answer, too.
  async answer (request, wanted) {
    const name = request.call
    if (!this.value || !name || !this.plugin.calls.includes(name)) return failure(E.UNSUPPORTED, '')
    this.running++
    try {
      return await this.value[name](request[name], wanted)
    } catch (e) {
      log('error', e.stack)
      return failure(E.PANIC, e.message)
    } finally {
      if (--this.running === 0) this.idle.splice(0).forEach(f => f())
    }
  }

  drain (call, done) {
    const end = () => {
      this.drained = true
      done(null, { unfinished: this.running })
    }
    if (this.running === 0) return end()
    const timer = setTimeout(end, call.request.timeout_ms)
    this.idle.push(() => { clearTimeout(timer); end() })
  }
}

function failure (kind, text) {
  return { error: { kind, text } }
}

// decode checks a configuration by its schema: strings alone, which is all that this example needs.
function decode (text, schema) {
  const problem = (summary, ...path) => Object.assign(new Error(summary), { path })
  let config
  try { config = JSON.parse(text) } catch (e) { throw problem('no JSON: ' + e.message) }
  if (config === null || typeof config !== 'object' || Array.isArray(config)) throw problem('not an object')
  const known = new Map(schema.attributes.map(a => [a.name, a]))
  for (const [name, value] of Object.entries(config)) {
    if (!known.has(name)) throw problem('there is no setting of this name', name)
    if (typeof value !== 'string') throw problem('has to be a string', name)
  }
  const out = {}
  for (const a of known.values()) {
    if (a.required && !(a.name in config)) throw problem('has to be set', a.name)
    out[a.name] = config[a.name] ?? a.default
  }
  return out
}

// serve runs a plugin until the server ends it.
function serve (plugin) {
  if (process.env.MTA_PLUGIN !== 'mta.plugin.v1') { // step 1
    console.error(`${plugin.name} ${plugin.version}: ${plugin.doc}\n\nThis program is a plugin of the Pabal mail server, which starts it.`)
    process.exit(1)
  }
  console.log = console.info = (...words) => log('info', words.join(' ')) // step 2: nothing else is printed
  const s = new Service(plugin)
  for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => s.drained && process.exit(0)) // step 6
  followLifeline()
  process.on('uncaughtException', e => { log('error', e.stack); process.exit(1) })

  const server = new grpc.Server({ 'grpc.max_receive_message_length': 16 << 20, 'grpc.max_send_message_length': 8 << 20 })
  server.addService(proto().Plugin.service, {
    Describe: s.describe.bind(s), Configure: s.configure.bind(s), Drain: s.drain.bind(s), Calls: s.calls.bind(s), Large: s.large.bind(s)
  })
  server.addService(health, { Check: (_call, done) => done(null, Buffer.from([0x08, 0x01])) })
  server.addService(stdio, { StreamStdio: () => {} })
  server.addService(controller, { Shutdown: (_call, done) => { done(null, Buffer.alloc(0)); setTimeout(() => process.exit(0), 50) } })
  const dir = process.env.PLUGIN_UNIX_SOCKET_DIR || fs.mkdtempSync(path.join(os.tmpdir(), 'mta'))
  const socket = path.join(dir, 'plugin-' + process.pid)
  server.bindAsync('unix:' + socket, grpc.ServerCredentials.createInsecure(), err => { // step 3
    if (err) throw err
    fs.writeSync(1, `1|1|unix|${socket}|grpc|\n`) // step 4
  })
}

// followLifeline ends the process when the server has died.
function followLifeline () {
  const fd = Number(process.env.MTA_LIFELINE || -1)
  delete process.env.MTA_LIFELINE
  if (fd < 0) return
  // A socket, since a file that is being read keeps the process from exiting.
  new net.Socket({ fd, readable: true, writable: false }).on('close', () => process.exit(1)).on('error', () => {}).resume()
}

module.exports = { serve, Service, decode, failure }
