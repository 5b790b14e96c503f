listener "mx" {
  address  = ["127.0.0.1:2525"]
  pipeline = pipeline.in
}
plugin "spam" {
  source = "builtin:filter"
}
pipeline "in" {
  on "rcpt" {
    use  = [plugin.spam]
    when = session.authenticated && envelop.sendr
  }
  on "rcpt" {
    use  = [plugin.spam]
    when = !session.authenticated && session.remoteip == "::1"
  }
  on "rcpt" {
    use  = [plugin.spam]
    when = message.size < 8 * MiB
  }
  on "message" {
    use  = [plugin.spam]
    when = message.size < 8 * MB || rcpt.domain == "a.example"
  }
  on "message" {
    use  = [plugin.spam]
    when = session.tls || cidr_contains("10.0.0.0/99", session.remote_ip)
  }
  on "message" {
    use  = [plugin.spam]
    when = message.size
  }
  on "message" {
    use  = [plugin.spam]
    when = session.tls && end_with(sender.domain, ".example")
  }
  on "message" {
    use  = [plugin.spam]
    when = session.tls || !session.user
  }
  on "message" {
    use  = [plugin.spam]
    when = session
  }
}
route "internet" {
  mx = true
}
