listener "mx" {
  address = ["127.0.0.1:2525"]
}

domains {
}
route "internet" {
  mx = true
}
