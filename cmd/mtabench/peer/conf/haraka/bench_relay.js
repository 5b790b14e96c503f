'use strict'
// Relays for everyone, to the sink.
exports.register = function () {
  this.register_hook('connect', 'relay')
  this.register_hook('rcpt', 'take')
  this.register_hook('get_mx', 'mx')
  this.port = parseInt(this.config.get('bench_port'), 10)
}
exports.relay = function (next, connection) { connection.relaying = true; next() }
exports.take = function (next) { next(OK) }
exports.mx = function (next) { next(OK, { priority: 0, exchange: '127.0.0.1', port: this.port }) }
