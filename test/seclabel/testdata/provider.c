/*
 * A provider of security labels, for tests: it takes every label but "refused", and "secret" from a superuser alone.
 *
 * What it uses of the server is declared here, so that it needs none of the server's headers, which few packages of
 * server programs bring along. The server compares the magic block before it takes the library. Compiled with
 * -DPG_MAJOR=15 for PostgreSQL 15.
 */
#include <stdbool.h>
#include <string.h>

/* fmgr.h */
struct abi
{
	int			version, funcmaxargs, indexmaxkeys, namedatalen, float8byval;
#if PG_MAJOR >= 15
	char		extra[32];
#endif
};
struct magic
{
	int			len;
	struct abi	abi;
#if PG_MAJOR >= 18
	const char *name, *version;
#endif
};

const struct magic *
Pg_magic_func(void)
{
	static const struct magic magic = {sizeof magic, {PG_MAJOR * 100, 100, 32, 64, 1
#if PG_MAJOR >= 15
	, "PostgreSQL"
#endif
	}};

	return &magic;
}

/* catalog/objectaddress.h, commands/seclabel.h, miscadmin.h, utils/elog.h */
struct object
{
	unsigned int class, object;
	int			sub;
};
extern void register_label_provider(const char *name, void (*check) (const struct object *, const char *));
extern bool superuser(void);
extern bool errstart(int level, const char *domain);
extern int	errcode(int sqlstate);
extern int	errmsg(const char *format,...);
extern void errfinish(const char *file, int line, const char *function);

#define ERROR 21
#define SIXBIT(c) (((c) - '0') & 0x3F)
#define SQLSTATE(a, b, c, d, e) (SIXBIT(a) + (SIXBIT(b) << 6) + (SIXBIT(c) << 12) + (SIXBIT(d) << 18) + (SIXBIT(e) << 24))

static void
refuse(int sqlstate, const char *label)
{
	errstart(ERROR, NULL);
	errcode(sqlstate);
	errmsg("label \"%s\" is not for you", label);
	errfinish(__FILE__, __LINE__, __func__);
}

static void
check(const struct object *object, const char *label)
{
	(void) object;
	if (label != NULL && strcmp(label, "refused") == 0)
		refuse(SQLSTATE('2', '2', '0', '2', '3'), label);
	if (label != NULL && strcmp(label, "secret") == 0 && !superuser())
		refuse(SQLSTATE('4', '2', '5', '0', '1'), label);
}

void
_PG_init(void)
{
	register_label_provider("pgshadow_test", check);
	register_label_provider("pgshadow test 2", check);
}
