route "internet" {
  mx = true
}
