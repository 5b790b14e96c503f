listener "submission" {
  address       = ["127.0.0.1:2587"]
  auth          = plugin.mailboxes
  insecure_auth = true
  pipeline      = pipeline.in
}
plugin "mailboxes" {
  source = "builtin:maildir"
  config { path = "mail/{user}" }
}
plugin "users" {
  source = "builtin:users"
  config { file = "users" }
}
plugin "spam" {
  source = "builtin:filter"
}
pipeline "in" {
  on "connect" {
    use = [plugin.spam]
  }
  on "rcpt" {
    use = [plugin.users]
  }
}
route "local" {
  store   = plugin.users
  convert = [plugin.mailboxes]
}
bounce {
  notify = [plugin.users]
}
