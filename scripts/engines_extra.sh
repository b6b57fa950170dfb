#!/usr/bin/env bash
# Builds what no package carries: a Consul agent, where a Go toolchain is. Usage: engines_extra.sh FOLDER
set -euo pipefail
folder=${1:-.engines}
command -v go >/dev/null || {
    echo "found no Go toolchain, so no Consul is built; its tests run against the stand-in. Install Go 1.22 or newer." >&2; exit 1; }
mkdir -p "$folder/consul"
cd "$folder/consul"
# Consul's own module replaces two of its parts by folders, so it cannot be installed by name; a main of ours can.
cat > main.go <<'GO'
package main

import (
	"os"

	mcli "github.com/mitchellh/cli"

	"github.com/hashicorp/consul/command"
	"github.com/hashicorp/consul/command/cli"
)

func main() {
	ui := &cli.BasicUI{BasicUi: mcli.BasicUi{Writer: os.Stdout, ErrorWriter: os.Stderr}}
	runner := &mcli.CLI{Args: os.Args[1:], Commands: command.RegisteredCommands(ui), Name: "consul"}
	code, err := runner.Run()
	if err != nil {
		panic(err)
	}
	os.Exit(code)
}
GO
[ -f go.mod ] || go mod init consul-agent
go get github.com/hashicorp/consul@v1.16.6
go mod tidy
go build -o consul .
echo "built $(pwd)/consul"
