hostname = "mta.test"
networks = ["127.0.0.0/8"]
data_dir = "{{.Run}}/data"

listener "in" {
  address  = ["127.0.0.1:{{.Port}}"]
  pipeline = pipeline.relay
  limits {
    connections_per_ip = 200 # the generator has one address
  }
}
{{if .Noop}}
plugin "noop" {
  source = "{{.Noop}}"
  sha256 = "{{.NoopSum}}"
}

pipeline "relay" {
  on "connect" { use = [plugin.noop] }
  on "helo" { use = [plugin.noop] }
  on "mail" { use = [plugin.noop] }
  on "rcpt" { use = [plugin.noop] }
  on "message" { use = [plugin.noop] }
}
{{else}}
pipeline "relay" {}
{{end}}
route "sink" {
  domains   = ["sink.test"]
  smarthost = "127.0.0.1:{{.Sink}}"
  tls       = "none" # the sink has none
}

route "internet" {
  mx = true
}

admin {
  socket = "{{.Run}}/admin.sock"
}
