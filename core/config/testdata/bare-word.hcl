listener "mx" {
  address = ["127.0.0.1:2525"]
}

plugin "mailboxes" {
  source = "builtin:maildir"
  config { path = "mail/{user}" }
}
route "local" {
  store = mailboxes
}
route "relay" {
  domains   = [example]
  smarthost = plugins.mailboxes
}
