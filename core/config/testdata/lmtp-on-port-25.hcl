listener "inside" {
  address  = ["127.0.0.1:25"]
  protocol = "lmtp"
}
route "internet" {
  mx = true
}
