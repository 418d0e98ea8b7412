package pgserver

import "syscall"

const defaultLocale = "C.UTF-8"

// dieWithParent has the kernel stop the child (SIGQUIT: an immediate shutdown) when the forking thread ends.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGQUIT }
