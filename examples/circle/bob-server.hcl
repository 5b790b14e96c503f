# The recipient's server: an old one, that takes 7-bit mail only. Bob has an account here.

hostname = "second.test"
domains  = ["second.test"]
data_dir = "./second"

listener "mx" {
  address = ["127.0.0.1:23025"]
  hide    = ["8BITMIME", "CHUNKING", "SMTPUTF8"]
}

listener "submission" {
  address       = ["127.0.0.1:23587"]
  auth          = plugin.users
  insecure_auth = true
  hide          = ["8BITMIME", "CHUNKING", "SMTPUTF8"]
}

plugin "users" {
  source = "builtin:users"
  config { file = "./second/users" }
}

plugin "mailboxes" {
  source = "builtin:maildir"
  auth   = plugin.users
  config {
    path     = "./second/mail/{domain}/{user}"
    accounts = "./second/users"
    imap {
      address       = ["127.0.0.1:23143"]
      insecure_auth = true
    }
  }
}

plugin "mime" {
  source = "builtin:mime"
  config { mailbox = "binary" }
}

route "local" {
  domains = domains
  store   = plugin.mailboxes
  convert = [plugin.mime] # and here it becomes itself again
}

route "first" {
  domains   = ["first.test"]
  smarthost = "127.0.0.1:13025"
  tls       = "none"
  convert   = [plugin.mime]
}

queue {
  min_free = "64MiB"
}
