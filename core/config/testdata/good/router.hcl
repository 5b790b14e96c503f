hostname = "mx.example.com"
data_dir = "/var/lib/mta"
listener "submission" {
  address = ["127.0.0.1:2587"]
}

plugin "router" {
  source = "builtin:router"
}

# Its way is taken where the router names it, and by no recipient of its own.
route "provider" {
  domains   = []
  smarthost = "smtp.provider.example:587"
  tls       = "verify"
  user      = "me"
  password  = env("SECRET")
}

route "out" {
  router = plugin.router
  tls    = "require"
}
