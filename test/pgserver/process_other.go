//go:build !linux

package pgserver

import "syscall"

const defaultLocale = "C"

// dieWithParent has no equivalent here: the janitor alone stops the server.
func dieWithParent(*syscall.SysProcAttr) {}
