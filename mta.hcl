# A whole mail server on this machine: loopback, ports above 1024, everything it keeps below ./var. From a clone:
#
#   go run ./cmd/mta serve
#
# makes the accounts ann and bob when there are none yet, and prints their passwords. "mta user add" makes more.
#
# "mta check" proves this file, "mta fmt" lays it out, "mta config show" prints it with every default and where each
# value comes from, and "mta config reference" tells of every block and key. Relative paths start at this file.

hostname = "localhost"                # EHLO name, Received:, Reporting-MTA:
domains  = ["example.test"]           # mail for these is ours: taken from anyone
networks = ["127.0.0.0/8", "::1/128"] # may send mail anywhere without a password
data_dir = "./var"                    # the queue

# Where mail from other servers comes in. On the internet: address = ["0.0.0.0:25", "[::]:25"], and tls.
listener "mx" {
  address  = ["127.0.0.1:2525"]
  pipeline = pipeline.inbound
  limits {
    connections_per_ip = 20
    message_size       = "35MiB"
    recipients         = 100
  }
}

# Where people send mail from their mail program: they log in. On the internet: address = ["0.0.0.0:465"], tls and
# implicit = true, and no insecure_auth, which the server refuses anywhere but on loopback.
listener "submission" {
  address       = ["127.0.0.1:2587"]
  auth          = plugin.users
  insecure_auth = true
  bare_lf       = "normalize" # programs that end lines by LF alone are helped; from strangers that is refused
  pipeline      = pipeline.outbound
}

# Everything that is policy is a plugin, in its own process. These are built in; a program of yours is named by its path:
#   source = "/usr/lib/mta/plugins/greylist"
plugin "users" {
  source = "builtin:users" # who may log in
  config {
    file = "./var/users" # mta user add, password, list and remove change it
  }
}

plugin "mailboxes" {
  source = "builtin:maildir" # where mail is kept, and read by IMAP and POP3
  auth   = plugin.users      # who may read
  config {
    path     = "./var/mail/{domain}/{user}"
    accounts = "./var/users" # each account has a mailbox
    aliases = {
      "team@example.test" = "ann@example.test, bob@example.test"
    }
    imap {
      address       = ["127.0.0.1:1143"]
      insecure_auth = true # passwords without TLS, on loopback only
    }
    pop3 {
      address       = ["127.0.0.1:1110"]
      insecure_auth = true
    }
  }
}

plugin "mime" {
  source = "builtin:mime" # 8-bit and binary mail becomes 7-bit for hosts that need it, and itself again in the mailbox
}

plugin "bounces" {
  source = "builtin:bounces" # the words of a report, in the language of its reader
  config {
    languages = ["ko", "en"]
  }
}

# Which plugins are asked about mail that comes in, and when: on "connect", "helo", "mail", "rcpt" or "message", in the
# order written. With a plugin "greylist" this would be:
#   on "rcpt" {
#     use  = [plugin.greylist]
#     when = !session.authenticated
#   }
pipeline "inbound" {}

pipeline "outbound" {}

# Where mail goes. The first route that matches a recipient takes it.
route "local" {
  domains = domains
  store   = plugin.mailboxes # asked at RCPT whether the mailbox exists
  convert = [plugin.mime]
}

route "internet" {
  mx      = true            # to the hosts that the recipient's domain names
  tls     = "opportunistic" # where a host offers it and it works
  convert = [plugin.mime]
}

# A host that does not answer: we keep the mail, try again about every 30 minutes, and tell the sender in the end.
queue {
  retry      = ["5m", "15m", "30m"] # and then the last again and again
  jitter     = 0.1
  warn_after = "4h"
  expire     = "5d"
  min_free   = "1GiB" # of disk; below it no mail is taken, and nothing is lost
}

bounce {
  notify = [plugin.bounces]
}

admin {
  socket = "./var/admin.sock" # the mta commands speak here
  listen = "127.0.0.1:8025"   # a page to look at, /metrics, /healthz, /readyz, settings for mail programs
}
