package examples

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/pgshadow/pgshadow/pkg/migration"
	"github.com/pgshadow/pgshadow/test/pgtest"
)

// job is what the test knows of a Kubernetes Job. A field that it does not know is an error: it may be misspelled.
type job struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   struct{ Name string }
	Spec       struct {
		Completions, Parallelism int
		BackoffLimit             int    `yaml:"backoffLimit"`
		PodReplacementPolicy     string `yaml:"podReplacementPolicy"`
		PodFailurePolicy         struct {
			Rules []rule
		} `yaml:"podFailurePolicy"`
		Template struct {
			Metadata struct{ Labels map[string]string }
			Spec     pod
		}
	}
}

type rule struct {
	Action      string
	OnExitCodes *struct {
		ContainerName string `yaml:"containerName"`
		Operator      string
		Values        []int
	} `yaml:"onExitCodes"`
	OnPodConditions []struct{ Type, Status string } `yaml:"onPodConditions"`
}

type pod struct {
	RestartPolicy                 string `yaml:"restartPolicy"`
	TerminationGracePeriodSeconds int    `yaml:"terminationGracePeriodSeconds"`
	AutomountServiceAccountToken  *bool  `yaml:"automountServiceAccountToken"`
	SecurityContext               struct {
		RunAsNonRoot   bool                  `yaml:"runAsNonRoot"`
		RunAsUser      int                   `yaml:"runAsUser"`
		RunAsGroup     int                   `yaml:"runAsGroup"`
		SeccompProfile struct{ Type string } `yaml:"seccompProfile"`
	} `yaml:"securityContext"`
	Containers []container
	Volumes    []struct {
		Name      string
		ConfigMap struct{ Name string } `yaml:"configMap"`
	}
}

type container struct {
	Name, Image string
	Args        []string
	Env         []struct {
		Name, Value string
		ValueFrom   *struct {
			SecretKeyRef struct{ Name, Key string } `yaml:"secretKeyRef"`
		} `yaml:"valueFrom"`
	}
	VolumeMounts []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
		ReadOnly  bool   `yaml:"readOnly"`
	} `yaml:"volumeMounts"`
	Resources                struct{ Requests, Limits map[string]string }
	TerminationMessagePolicy string `yaml:"terminationMessagePolicy"`
	SecurityContext          struct {
		AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
		Capabilities             struct{ Drop []string }
	} `yaml:"securityContext"`
}

func readJob(t *testing.T) job {
	t.Helper()
	return parseJob(t, kubernetes(t))
}

func parseJob(t *testing.T, text string) job {
	t.Helper()
	var read job
	decoder := yaml.NewDecoder(strings.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&read); err != nil {
		t.Fatal(err)
	}
	if len(read.Spec.Template.Spec.Containers) != 1 {
		t.Fatalf("it has %d containers", len(read.Spec.Template.Spec.Containers))
	}
	return read
}

func kubernetes(t *testing.T) string {
	t.Helper()
	return read(t, "kubernetes/job.yaml")
}

// action is what Kubernetes does about a pod whose container has ended with the code: the first rule that fits decides,
// else it counts towards backoffLimit.
func (j job) action(code int, disrupted bool) string {
	for _, rule := range j.Spec.PodFailurePolicy.Rules {
		if exit := rule.OnExitCodes; exit != nil && exit.Operator == "In" && slices.Contains(exit.Values, code) {
			return rule.Action
		}
		for _, condition := range rule.OnPodConditions {
			if disrupted && condition.Type == "DisruptionTarget" && condition.Status == "True" {
				return rule.Action
			}
		}
	}
	return "Count"
}

// What the same command can mend is tried again, the rest is not.
func TestJobActsByExitCode(t *testing.T) {
	t.Parallel()
	j := readJob(t)
	const usage, killed = 2, 137
	for code, want := range map[int]struct{ alone, disrupted string }{
		migration.Failed.ExitCode():  {"Count", "Ignore"},
		usage:                        {"FailJob", "FailJob"},
		migration.Refused.ExitCode(): {"FailJob", "FailJob"},
		migration.Aborted.ExitCode(): {"FailJob", "FailJob"},
		migration.Stopped.ExitCode(): {"Count", "Ignore"},
		migration.Unknown.ExitCode(): {"FailJob", "FailJob"},
		killed:                       {"Count", "Ignore"},
	} {
		if alone, disrupted := j.action(code, false), j.action(code, true); alone != want.alone || disrupted != want.disrupted {
			t.Errorf("exit code %d: %s, with a disruption %s, want %+v", code, alone, disrupted, want)
		}
	}
	for _, rule := range j.Spec.PodFailurePolicy.Rules {
		if exit := rule.OnExitCodes; exit != nil && exit.ContainerName != j.Spec.Template.Spec.Containers[0].Name {
			t.Errorf("a rule is for container %s", exit.ContainerName)
		}
	}
}

// What Kubernetes asks for, and what the image is.
func TestJobFitsTheImage(t *testing.T) {
	t.Parallel()
	j := readJob(t)
	pod := j.Spec.Template.Spec
	c := pod.Containers[0]
	if j.APIVersion != "batch/v1" || j.Kind != "Job" || pod.RestartPolicy != "Never" || j.Spec.PodReplacementPolicy != "Failed" || j.Spec.BackoffLimit < 1 {
		t.Errorf("its frame is %+v", j)
	}
	if !pod.SecurityContext.RunAsNonRoot || !c.SecurityContext.ReadOnlyRootFilesystem || !slices.Equal(c.SecurityContext.Capabilities.Drop, []string{"ALL"}) ||
		c.SecurityContext.AllowPrivilegeEscalation == nil || *c.SecurityContext.AllowPrivilegeEscalation {
		t.Errorf("its rights are %+v and %+v", pod.SecurityContext, c.SecurityContext)
	}
	for file, want := range map[string]string{
		"../../Dockerfile":       `USER ` + strconv.Itoa(pod.SecurityContext.RunAsUser) + `:` + strconv.Itoa(pod.SecurityContext.RunAsGroup) + "\n",
		"../../.goreleaser.yaml": `"PGSHADOW_IMAGE" "` + regexp.MustCompile(`:[^:]*$`).ReplaceAllString(c.Image, "") + `"`,
	} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(content), want) {
			t.Errorf("%s has no %q", file, want)
		}
	}
}

// environment is what the container's process finds, with the secret's DSN.
func (c container) environment(t *testing.T, dsn string) []string {
	t.Helper()
	var env []string
	for _, variable := range c.Env {
		value := variable.Value
		if variable.ValueFrom != nil {
			value = dsn
		}
		env = append(env, variable.Name+"="+value)
	}
	return env
}

// A pod that is lost in the middle of the copy leaves a run that the next one, of the same command, ends.
func TestJobLosesItsPod(t *testing.T) {
	t.Parallel()
	c := readJob(t).Spec.Template.Spec.Containers[0]
	db := orders(t, large)
	env := c.environment(t, db.DSN)
	// A session that has not got the settings of PGOPTIONS makes a throttle query that cannot be run, which is refused.
	env = append(env, "PGSHADOW_THROTTLE_QUERY=SELECT 1 / (SELECT (reset_val = '20')::int FROM pg_catalog.pg_settings WHERE name = 'tcp_keepalives_idle') > 1")
	lost := start(t, append(env, "PGSHADOW_MAX_ROWS_PER_SECOND=100", "PGSHADOW_COPY_WORKERS=1", "PGSHADOW_LOG_LEVEL=debug"), binary, c.Args...)
	lost.await("chunk copied")
	lost.signal(syscall.SIGKILL)
	if got := lost.end(); got.stdout != "" {
		t.Fatalf("it has ended by itself: %s", got)
	}
	db.Exec(t, `UPDATE public.orders SET customer_id = -customer_id WHERE id % 7 = 0; DELETE FROM public.orders WHERE id % 11 = 0;
		INSERT INTO public.orders (customer_id, note) SELECT i, 'new' FROM generate_series(1, 500) i`)
	before := rows(t, db)
	// The server takes a moment to notice that the process is gone. A new pod comes later.
	db.Exec(t, "SELECT pg_advisory_lock(x'70677368'::int, 'public.orders'::regclass::int); SELECT pg_advisory_unlock_all()")
	got := run(t, env, binary, c.Args...)
	if got.code != 0 {
		t.Fatalf("the next pod: got %s", got)
	}
	done := decode(t, []byte(got.stdout))
	if done.Outcome != migration.Done || done.RowsCopied == 0 || !strings.Contains(got.stderr, `"message":"run resumed"`) {
		t.Errorf("the next pod: got %s", got)
	}
	if form(t, db) != "bigint" || rows(t, db) != before {
		t.Errorf("customer_id is %s, and the rows are %s, want %s", form(t, db), rows(t, db), before)
	}
	if runs := pgtest.Scalar[int](t, db, "SELECT count(*) FROM pgshadow.run"); runs != 1 {
		t.Errorf("there were %d runs", runs)
	}
}

// A pod that is evicted stops with the code that is tried again.
func TestJobIsEvicted(t *testing.T) {
	t.Parallel()
	j := readJob(t)
	c := j.Spec.Template.Spec.Containers[0]
	db := orders(t, small)
	env := c.environment(t, db.DSN)
	wait, _ := held(t)
	evicted := start(t, append(env, wait), binary, c.Args...)
	evicted.await("throttled")
	evicted.signal(syscall.SIGTERM)
	if got := evicted.end(); j.action(got.code, true) != "Ignore" || decode(t, []byte(got.stdout)).Outcome != migration.Stopped {
		t.Fatalf("got %s", got)
	}
}

var option = regexp.MustCompile(`(?m)^( +)#(-|\w|  )`)

// The option of a plan keeps a change that must not be made twice from the successor of a pod that has made it, and not
// from that of one that is lost in the middle.
func TestJobIsPinned(t *testing.T) {
	t.Parallel()
	j := parseJob(t, option.ReplaceAllString(kubernetes(t), "$1$2"))
	pod := j.Spec.Template.Spec
	c := pod.Containers[0]
	if len(pod.Volumes) != 1 || len(c.VolumeMounts) != 1 || pod.Volumes[0].Name != c.VolumeMounts[0].Name || len(readJob(t).Spec.Template.Spec.Volumes) != 0 {
		t.Fatalf("its volumes are %+v, mounted %+v", pod.Volumes, c.VolumeMounts)
	}
	mount, dir := c.VolumeMounts[0].MountPath, t.TempDir()
	made := regexp.MustCompile(`(?m)^#   pgshadow (plan .*) >(\S+)\n#   kubectl create configmap (\S+) --from-file=(\S+)$`).FindStringSubmatch(kubernetes(t))
	if len(made) == 0 || made[2] != made[4] || made[3] != pod.Volumes[0].ConfigMap.Name || !slices.Contains(c.Args, "--expect-plan="+mount+"/"+made[4]) {
		t.Fatalf("the plan is made by %q, for %v", made, c.Args)
	}
	asked := regexp.MustCompile(`^plan --table (\S+) --alter "(.*)" --output json$`).FindStringSubmatch(made[1])
	if len(asked) == 0 || !slices.Contains(c.Args, "--table="+asked[1]) || !slices.Contains(c.Args, "--alter="+asked[2]) {
		t.Fatalf("the plan is of %s, the change is %v", made[1], c.Args)
	}
	const twice = " USING customer_id * 100"
	var args []string
	for _, arg := range c.Args {
		if strings.HasPrefix(arg, "--alter=") {
			arg += twice
		}
		args = append(args, strings.Replace(arg, mount, dir, 1))
	}
	args = append(args, "--allow-lossy")
	db := orders(t, small)
	env := c.environment(t, db.DSN)
	plan := run(t, env, binary, "plan", "--table", asked[1], "--alter", asked[2]+twice, "--allow-lossy", "--output", "json")
	if err := os.WriteFile(filepath.Join(dir, made[4]), []byte(plan.stdout), 0o600); err != nil || plan.code != 0 {
		t.Fatalf("the plan: %v, got %s", err, plan)
	}
	wait, _ := held(t)
	lost := start(t, append(env, wait), binary, args...)
	lost.await("throttled")
	lost.signal(syscall.SIGKILL)
	lost.end()
	db.Exec(t, "SELECT pg_advisory_lock(x'70677368'::int, 'public.orders'::regclass::int); SELECT pg_advisory_unlock_all()")
	if got := run(t, env, binary, args...); got.code != 0 || !strings.Contains(got.stderr, `"message":"run resumed"`) {
		t.Fatalf("the next pod: got %s", got)
	}
	for range 2 {
		got := run(t, env, binary, args...)
		if got.code != 3 || j.action(got.code, false) != "FailJob" || decode(t, []byte(got.stdout)).Error.Check != "plan" {
			t.Errorf("its successor: got %s", got)
		}
	}
	if wrong := pgtest.Scalar[int](t, db, "SELECT count(*) FROM public.orders WHERE customer_id <> id * 100"); wrong != 0 || form(t, db) != "bigint" {
		t.Errorf("%d rows are not changed once; customer_id is %s", wrong, form(t, db))
	}
	if got := run(t, env, binary, "history", "--table", asked[1]); strings.Count(got.stdout, "outcome         done") != 1 {
		t.Errorf("the history: got %s", got)
	}
}
