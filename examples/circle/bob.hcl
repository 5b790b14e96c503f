address          = "bob@second.test"
name             = "Bob"
imap             = "127.0.0.1:23143"
submit           = "127.0.0.1:23587"
password_command = "cat bob.password" # a password manager's command, in real life
