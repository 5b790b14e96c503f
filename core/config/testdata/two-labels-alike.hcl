listener "mx" {
  address = ["127.0.0.1:2525"]
}

listener "mx" {
  address = ["127.0.0.1:2526"]
}
queue {}
queue {
  jitter = 0.2
}
route "internet" {
  mx = true
}
route "internet" {
  mx = true
}
