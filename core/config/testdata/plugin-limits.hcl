listener "submission" {
  address       = ["127.0.0.1:2587"]
  auth          = plugin.users
  insecure_auth = true
}
plugin "users" {
  source         = "builtin:users"
  processes      = 0
  max_concurrent = "many"
  limits {
    memory = "1MiB"
    pids   = 64
    nfile  = 100
  }
  sandbox {
    read        = "/etc/ssl"
    connect_tcp = [11333, 70000]
  }
  restart {
    min = "1m"
    max = "30s"
  }
  breaker {
    failures = 0
    cooldown = 5
  }
  config { file = "users" }
}
route "internet" {
  mx = true
}
