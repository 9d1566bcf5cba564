package config

import "sluice.example/sluice/l402"

// Secret is a key or password of the file, which prints as "[redacted]".
type Secret = l402.Secret
