address          = "carol@first.test"
name             = "Carol"
imap             = "127.0.0.1:13143"
submit           = "127.0.0.1:13587"
password_command = "cat carol.password" # a password manager's command, in real life
