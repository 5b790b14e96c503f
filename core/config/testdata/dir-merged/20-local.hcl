plugin "mailboxes" {
  source = "builtin:maildir"
  config { path = "mail/{user}" }
}
route "local" {
  domains = domains
  store   = plugin.mailboxes
}
