package config

import "sluice.example/sluice/l402"

// Secret is a key or password of the file. It prints as "[redacted]".
type Secret = l402.Secret
