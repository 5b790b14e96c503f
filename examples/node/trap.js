#!/usr/bin/env -S node --preserve-symlinks-main
'use strict'
// A plugin of the Pabal mail server in JavaScript: it refuses mail to the spam trap, and marks what it has seen.
//
// In mta.hcl:
//
//   plugin "trap" {
//     source = "/usr/lib/mta/plugins/trap.js" # the file that `npm run build` makes
//     config {
//       trap = "spamtrap"
//     }
//   }
//
//   pipeline "inbound" {
//     on "rcpt" {
//       use = [plugin.trap]
//     }
//     on "message" {
//       use = [plugin.trap]
//     }
//   }

const { serve } = require('./wire')

class Trap {
  constructor (config) {
    this.config = config
  }

  // rcpt is asked once for each recipient.
  rcpt ({ recipient }) {
    if (recipient.address.startsWith(this.config.trap + '@')) {
      return { verdict: { action: 'ACTION_REJECT', reply: { code: 550, enhanced: '5.7.1', text: 'nobody reads that' } } }
    }
    return { verdict: { action: 'ACTION_CONTINUE' } }
  }

  // message is asked once for each message. Contents and header values are bytes: a Buffer.
  message ({ content, header }) {
    const value = Buffer.from(` ${content.data.length} bytes, ${header.length} fields`)
    return { verdict: { action: 'ACTION_CONTINUE', edits: [{ add_header: { name: 'X-Trap', value } }] } }
  }
}

const plugin = {
  name: 'trap',
  version: '0.1.0',
  doc: 'refuses mail to the spam trap',
  calls: ['rcpt', 'message'],
  schema: { attributes: [{ name: 'trap', type: 'string', default: 'spamtrap', doc: 'the local part that takes no mail' }] },
  create: config => new Trap(config)
}

if (require.main === module) serve(plugin)

module.exports = { plugin, Trap }
