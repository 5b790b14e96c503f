listener "mx" {
  address = ["127.0.0.1:2525"]
}
route "internet" {
  mx = true
}

queue {
  retry      = ["5m", "6d"]
  warn_after = "7d"
}
