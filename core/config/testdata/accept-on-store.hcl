domains = ["example.com"]
listener "mx" {
  address = ["127.0.0.1:2525"]
}
plugin "mailboxes" {
  source   = "builtin:maildir"
  on_error = "accept"
  config { path = "mail/{domain}/{user}" }
}
route "local" {
  domains = domains
  store   = plugin.mailboxes
}
