listener "mx" {
  address = ["127.0.0.1:2525"]
  limits {
    connections  = 0
    message_size = "1KiB"
    recipients   = 99999999999
  }
}
queue {
  jitter = 0.9
  retry  = ["5m", "1ms"]
}
route "internet" {
  mx   = true
  port = 70000
}
