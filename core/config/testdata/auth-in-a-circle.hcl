observe = [plugin.users, plugin.watcher]
listener "submission" {
  address       = ["127.0.0.1:2587"]
  auth          = plugin.users
  insecure_auth = true
}
plugin "users" {
  source = "builtin:users"
  auth   = plugin.ldap
  config { file = "users" }
}
plugin "ldap" {
  source = "builtin:users"
  auth   = plugin.users
  config { file = "users" }
}
plugin "imap" {
  source = "builtin:maildir"
  auth   = plugin.imap
  config { path = "mail/{user}" }
}
plugin "watcher" {
  source = "builtin:plain"
}
route "internet" {
  mx = true
}
