module cpa-codex-cli

go 1.21
