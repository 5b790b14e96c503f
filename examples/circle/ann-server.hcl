# The sender's server. Ann and Carol have accounts here.

hostname = "first.test"
domains  = ["first.test"]
data_dir = "./first"

listener "mx" {
  address = ["127.0.0.1:13025"]
}

listener "submission" {
  address       = ["127.0.0.1:13587"]
  auth          = plugin.users
  insecure_auth = true
}

plugin "users" {
  source = "builtin:users"
  config { file = "./first/users" }
}

plugin "mailboxes" {
  source = "builtin:maildir"
  auth   = plugin.users
  config {
    path     = "./first/mail/{domain}/{user}"
    accounts = "./first/users"
    imap {
      address       = ["127.0.0.1:13143"]
      insecure_auth = true
    }
  }
}

plugin "mime" {
  source = "builtin:mime"
}

route "local" {
  domains = domains
  store   = plugin.mailboxes
}

# On the internet this is mx = true; the two servers of this example find each other without the DNS.
route "second" {
  domains   = ["second.test"]
  smarthost = "127.0.0.1:23025"
  tls       = "none"
  convert   = [plugin.mime] # what the next server can't take is made 7-bit
}

queue {
  min_free = "64MiB"
}
