"""What `gn-det train` and `gn-det test` need around mmengine's Runner."""
