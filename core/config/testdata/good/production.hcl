hostname = "mx1.example.com"
domains  = ["Example.COM", "bücher.example"]
networks = ["127.0.0.0/8", "::1/128", "192.0.2.7"]
data_dir = "/var/lib/mta"

postmaster = "ann@example.com"

tls "public" {
  cert_file = "tls/cert.pem"
  key_file  = "tls/key.pem"
}

listener "mx" {
  address  = ["0.0.0.0:25", "[::]:25"]
  tls      = tls.public
  pipeline = pipeline.inbound
  bare_lf  = "normalize"
  limits {
    connections_per_ip = 7
  }
}

listener "submission" {
  address  = ["0.0.0.0:465"]
  tls      = tls.public
  implicit = true
  auth     = plugin.users
  pipeline = pipeline.outbound
}

plugin "users" {
  source = "builtin:users"
  config { file = "users" }
}

plugin "mailboxes" {
  source = "builtin:maildir"
  config { path = "/var/mail/{domain}/{user}" }
}

plugin "mime" {
  source = "builtin:mime"
}

plugin "greylist" {
  source  = "plugins/greylist"
  sha256  = "8C1B0c8e3f5a7d92b64e0f3a1d5c7e9b2f4a6c8e0d1b3f5a7c9e1d3b5f7a9c0e"
  timeout = "2s"
  args    = ["-v", join("/", ["a", "b"])]
  env     = ["HOME", "TOKEN=${env("SECRET")}"]
  config {
    delay    = "1d12h"
    networks = ["10.0.0.0/8"]
    limit    = 12
    state    = "state/greylist"
    token    = env("SECRET")
    labels   = { a = "1", "b c" = "2" }
    rule { name = "one" }
    rule { name = env("SECRET") }
  }
}

plugin "bounces" {
  source = "builtin:bounces"
}

pipeline "inbound" {
  on "rcpt" {
    use  = [plugin.greylist]
    when = !session.authenticated && !cidr_contains("10.0.0.0/8", session.remote_ip)
  }
  on "message" {
    use      = [plugin.greylist]
    when     = message.size < 8 * MiB
    timeout  = "30s"
    on_error = "accept"
  }
}

pipeline "outbound" {}

route "local" {
  domains = domains
  store   = plugin.mailboxes
  convert = [plugin.mime]
}

route "dovecot" {
  domains = ["lists.example.com"]
  lmtp    = "unix:run/lmtp"
}

route "partner" {
  domains   = ["partner.example", "*.partner.example"]
  smarthost = ["smtp.partner.example:587", "[2001:db8::1]:587"]
  tls       = "verify"
  user      = "mx1"
  password  = env("SECRET")
}

route "internet" {
  mx      = true
  convert = [plugin.mime]
  source  = "192.0.2.1"
}

queue {
  retry      = ["1m", "90s", "36h"]
  warn_after = "0s"
  destination "google" {
    mx   = ["*.google.com"]
    rate = "600/1m"
  }
  priority "bulk" {
    when  = session.listener == "bulk" || sender.domain == "news.example.com" || meta("bulk") == "yes"
    level = -4
  }
}

bounce {
  notify = [plugin.bounces]
}

admin {
  socket = "run/admin.sock"
}

dns {
  servers = ["192.0.2.53", "[2001:db8::53]:5353"]
}
