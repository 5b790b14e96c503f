listener "mx" {
  address  = ["127.0.0.1:2525"]
  pipeline = pipeline.in
}
listener "other" {
  address  = ["127.0.0.1:2526"]
  pipeline = pipeline.short
}
plugin "spam" {
  source = "builtin:filter"
}
plugin "virus" {
  source  = "builtin:filter"
  timeout = "2m"
}
pipeline "in" {
  on "message" {
    use      = [plugin.spam, plugin.virus]
    parallel = true
  }
  on "message" {
    use     = [plugin.virus]
    timeout = "2m30s"
  }
}
pipeline "short" {
  data_budget = "1m"
  on "message" {
    use      = [plugin.virus]
    parallel = true
  }
}
route "internet" {
  mx = true
}
