listener "mx" {
  address = ["127.0.0.1:2525"]
}

route "internet" {
  mx  = true
  user = "파발" /* 역참 */ + 1
}
