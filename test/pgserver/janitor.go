package pgserver

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
)

// janitorScript waits for the end of its input, which comes when the process that started it is gone, however it went.
// It then stops a server that is still there and removes the folder, where told to.
const janitorScript = `
read -r _
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ]; then kill -QUIT "$pid"; fi
rounds=0
while [ -e "$1/data/postmaster.pid" ] && [ "$rounds" -lt 200 ]; do sleep 0.05; rounds=$((rounds + 1)); done
if [ "$2" = remove ]; then rm -rf "$1"; fi
`

// janitor is a small process that cleans up behind this one. Go has no hook at process exit, and a killed process
// could not run one.
type janitor struct {
	process *process
	input   io.WriteCloser
}

func startJanitor(dir string, remove bool) (*janitor, error) {
	then := "keep"
	if remove {
		then = "remove"
	}
	cmd := exec.Command("/bin/sh", "-c", janitorScript, "pgserver-janitor", dir, then)
	account{}.prepare(cmd, "/") // as the current user, who could make the folder and so can remove it
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("opening the janitor's input: %w", err)
	}
	running, err := startProcess(cmd)
	if err != nil {
		return nil, errors.Join(err, input.Close())
	}
	return &janitor{process: running, input: input}, nil
}

// dismiss lets the janitor do its work now, and waits for it.
func (j *janitor) dismiss() error {
	if err := j.input.Close(); err != nil {
		return fmt.Errorf("closing the janitor's input: %w", err)
	}
	<-j.process.done
	if j.process.err != nil {
		return fmt.Errorf("waiting for the janitor: %w", j.process.err)
	}
	return nil
}
