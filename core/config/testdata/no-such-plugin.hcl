listener "mx" {
  address  = ["127.0.0.1:2525"]
  pipeline = pipeline.inbound
}
plugin "rspamd" {
  source = "builtin:filter"
}
pipeline "inbound" {
  on "message" {
    use = [plugin.rspamd, plugin.rspmd]
  }
}
route "internet" {
  mx = true
}
