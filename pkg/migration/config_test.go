package migration

import (
	"strings"
	"testing"
	"time"

	"github.com/pgshadow/pgshadow/pkg/verify"
)

func TestValidate(t *testing.T) {
	right := Config{Table: "t", Alters: []string{"ADD COLUMN x int"}}
	if err := right.Validate(); err != nil {
		t.Errorf("zero values are wrong: %v", err)
	}
	if err := right.withDefaults().Validate(); err != nil {
		t.Errorf("the defaults are wrong: %v", err)
	}
	for problem, spoil := range map[string]func(*Config){
		"table is missing":       func(c *Config) { c.Table = " " },
		"alter is missing":       func(c *Config) { c.Alters = nil },
		"alter is empty":         func(c *Config) { c.Alters = []string{"ADD COLUMN x int", "\n"} },
		"copy-workers is 33":     func(c *Config) { c.Copy.Workers = 33 },
		"copy-workers is -1":     func(c *Config) { c.Copy.Workers = -1 },
		"index-workers is 33":    func(c *Config) { c.Copy.IndexWorkers = 33 },
		"index-workers is -1":    func(c *Config) { c.Copy.IndexWorkers = -1 },
		"chunk-time is 1m0.001s": func(c *Config) { c.Copy.ChunkTime = time.Minute + time.Millisecond },
		"chunk-time is -1ns":     func(c *Config) { c.Copy.ChunkTime = -1 },
		"lock-timeout is -1ns":   func(c *Config) { c.Cutover.LockTimeout = -1 },
		"max-lock-hold is -1ns":  func(c *Config) { c.Cutover.MaxLockHold = -1 },
		"cutover-attempts is -1": func(c *Config) { c.Cutover.Attempts = -1 },
		"reconnect-for is -1ns":  func(c *Config) { c.ReconnectFor = -1 },
		"max-wal-retained is -1": func(c *Config) { c.MaxWALRetained = -1 },
		`cutover is "later"`:     func(c *Config) { c.Cutover.Mode = "later" },
		`verify is "half"`:       func(c *Config) { c.Verify = "half" },
		`retire is "burn"`:       func(c *Config) { c.Retire = "burn" },
	} {
		config := right
		spoil(&config)
		err := config.Validate()
		if err == nil || !strings.HasPrefix(err.Error(), problem) || strings.Contains(err.Error(), "\n") {
			t.Errorf("want %q, got %v", problem, err)
		}
	}
	wrong := Config{Copy: CopyConfig{Workers: -1}, Verify: "x", Retire: "y"}
	if n := strings.Count(wrong.Validate().Error(), "\n"); n != 4 {
		t.Errorf("not every problem is named: %v", wrong.Validate())
	}
}

func TestDefaults(t *testing.T) {
	got := Config{}.withDefaults()
	if got.Copy != (CopyConfig{Workers: 2, IndexWorkers: 2, ChunkTime: 500 * time.Millisecond, DirtyMemory: 32 << 20}) ||
		got.Cutover != (CutoverConfig{Mode: CutoverAuto, LockTimeout: 500 * time.Millisecond, MaxLockHold: time.Second, Attempts: 60, CompareEvery: time.Minute}) ||
		got.Verify != verify.Full || got.Retire != Keep || got.MaxWALRetained != 50<<30 || got.ReconnectFor != 5*time.Minute || got.Parse == nil || got.Observer == nil {
		t.Errorf("the defaults are %+v", got)
	}
	kept := Config{Copy: CopyConfig{Workers: 7}, Retire: Drop, Verify: verify.Off}.withDefaults()
	if kept.Copy.Workers != 7 || kept.Retire != Drop || kept.Verify != verify.Off {
		t.Errorf("what was set became %+v", kept)
	}
}
