package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// sampleEvery is how often the size of the process is read.
const sampleEvery = 50 * time.Millisecond

// measureMemory watches the size of pgshadow's process while it changes a big table under load.
func measureMemory(ctx context.Context, b *bench) (err error) {
	b.heading("memory: %s rows, %d clients, %d transactions/s", grouped(int64(b.memoryRows)), clients, b.rate)
	if err := b.seed(ctx, b.memoryRows); err != nil {
		return err
	}
	load, err := b.traffic(b.memoryRows)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, load.interrupt()) }()
	if err := pause(ctx, warmUp); err != nil {
		return err
	}
	sampling, stop := context.WithCancel(ctx)
	defer stop()
	var sampler sampler
	log := &runLog{}
	command := b.command(log)
	command.Began = func(pid int) { sampler.begin(sampling, pid) }
	began := time.Now()
	result, err := command.Run(ctx)
	stop()
	if err != nil {
		return err
	}
	all, err := load.stop(ctx)
	if err != nil {
		return err
	}
	rss, peak := sampler.end()
	b.printf("peak resident set of pgshadow   %s (VmHWM); most seen, every %s: %s (VmRSS)\n", megabytes(peak), sampleEvery, megabytes(rss))
	b.printf("largest process of the run      %s (ru_maxrss; the parser, a short child, counts)\n", megabytes(result.Largest))
	b.printf("duration                        %s, %s rows copied, %s changes received, %s keys replayed, lock held %.1f ms\n\n",
		seconds(result.Elapsed), grouped(result.RowsCopied), grouped(int64(result.ChangesReceived)), grouped(int64(result.KeysReplayed)),
		result.Cutover.LockHoldMS)
	b.printf("%s\n", clientsByPhase(all, log.phases(), began, began.Add(result.Elapsed)))
	b.printf("tx/s: of the clients, who want %d. worst: their longest transaction; overdue: counted from when it was due at\n"+
		"this rate, so with what the machine was behind. gap: the longest time without a transaction that finished.\n", b.rate)
	return nil
}

// clientsByPhase is what the clients saw, before the run, in each of its phases, and in all.
func clientsByPhase(all []finished, phases []start, began, ended time.Time) *sheet {
	t := newSheet("phase", "seconds", "tx/s", "p99 ms", "worst ms", "overdue ms", "gap ms")
	add := func(label string, from, to time.Time) {
		w := look(all, from, to)
		t.add(label, to.Sub(from).Seconds(), w.rate, w.p99, w.worst, w.overdue, w.gap)
	}
	add("before", began.Add(-warmUp/2), began)
	for i, phase := range phases {
		to := ended
		if i+1 < len(phases) {
			to = phases[i+1].at
		}
		add(phase.phase, phase.at, to)
	}
	add("all", began, ended)
	return t
}

// sampler reads the size of a process, in bytes, until it has exited.
type sampler struct {
	group     sync.WaitGroup
	rss, peak int64
}

func (s *sampler) begin(ctx context.Context, pid int) {
	s.group.Go(func() {
		ticker := time.NewTicker(sampleEvery)
		defer ticker.Stop()
		for {
			rss, peak, err := residentSet(pid)
			if err != nil {
				return // it has exited, or the system has no /proc
			}
			s.rss, s.peak = max(s.rss, rss), max(s.peak, peak)
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	})
}

// end waits for the sampling to end and returns the highest values, 0 where there are none.
func (s *sampler) end() (rss, peak int64) {
	s.group.Wait()
	return s.rss, s.peak
}

func residentSet(pid int) (rss, peak int64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("reading the size of process %d: %w", pid, err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(status)); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch {
		case err != nil:
		case name == "VmRSS":
			rss = kilobytes << 10
		case name == "VmHWM":
			peak = kilobytes << 10
		}
	}
	return rss, peak, nil
}
