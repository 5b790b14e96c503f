listener "mx" {
  address  = ["127.0.0.1:2525"]
  pipeline = pipeline.in
}
plugin "greylist" {
  source = "builtin:filter"
  config {
    dealy    = "5m"
    delay    = "5 minutes"
    networks = ["10.0.0.0/8", "10.0.0.0/99"]
    action   = "rejct"
    count    = "7"
    limit    = 12
    from     = "nobody"
    tokken   = "hunter2"
    rule {
      nam = "x"
    }
    rules {
    }
    other "x" {
    }
  }
}
plugin "users" {
  source = "builtin:users"
}
plugin "plain" {
  source = "builtin:plain"
  config { any = 1 }
}
pipeline "in" {
  on "rcpt" {
    use = [plugin.greylist]
  }
}
route "internet" {
  mx = true
}
