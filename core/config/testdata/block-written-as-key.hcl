listener "mx" {
  address = ["127.0.0.1:2525"]
  limits  = { recipients = 5 }
}
route "internet" {
  mx = true
}
