listener "mx" {
  address = ["127.0.0.1:2525"]
}

domains = [for d in ["a", "b"] : "${d}.example"]
route "internet" {
  mx   = 1 > 0 ? true : false
  port = 24 + 1
}
queue {
  expire = null
  jitter = 1e999999
}
