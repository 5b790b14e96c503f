listener "mx" {
  address = ["127.0.0.1:2525"]
}

plugin "mailboxes" {
  source = "builtin:maildir"
  config { path = "mail/{user}" }
}
route "none" {
  domains = ["a.example"]
}
route "two" {
  domains   = ["b.example"]
  store     = plugin.mailboxes
  smarthost = "b.example:25"
}
route "idle" {
  domains = ["c.example"]
  store   = plugin.mailboxes
  tls     = "verify"
  port    = 26
}
route "off" {
  domains = ["d.example"]
  mx      = false
}
route "asks" {
  domains  = ["e.example"]
  router   = plugin.mailboxes
  user     = "mx1"
  password = "secret"
}
