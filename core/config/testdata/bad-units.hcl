listener "mx" {
  address = ["127.0.0.1:2525"]
  limits {
    message_size = "35 megs"
  }
}
queue {
  retry      = ["5 min", "1h"]
  warn_after = "-4h"
  expire     = "forever"
  min_free   = "1GIB"
  destination "google" {
    mx   = ["*.google.com"]
    rate = "600"
  }
}
route "internet" {
  mx = true
}
