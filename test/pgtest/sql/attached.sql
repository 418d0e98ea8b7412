-- What hangs on tables: triggers, rules, policies and extended statistics, a line each.
SELECT pg_catalog.format('%s %s on %s: %s', o.kind, o.name, o.relation::regclass, pg_catalog.jsonb_strip_nulls(o.facts))
FROM (
  SELECT 'trigger' AS kind, pg_catalog.quote_ident(t.tgname) AS name, t.tgrelid AS relation,
         pg_catalog.jsonb_build_object('definition', pg_catalog.pg_get_triggerdef(t.oid), 'enabled', t.tgenabled) AS facts
    FROM pg_catalog.pg_trigger t WHERE NOT t.tgisinternal
  UNION ALL
  SELECT 'rule', pg_catalog.quote_ident(r.rulename), r.ev_class, pg_catalog.jsonb_build_object('definition', pg_catalog.pg_get_ruledef(r.oid), 'enabled', r.ev_enabled)
    FROM pg_catalog.pg_rewrite r WHERE r.rulename <> '_RETURN'
  UNION ALL
  SELECT 'policy', pg_catalog.quote_ident(p.polname), p.polrelid, pg_catalog.jsonb_build_object('command', p.polcmd, 'permissive', p.polpermissive,
         'roles', (SELECT pg_catalog.jsonb_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(r)::text END ORDER BY n) FROM pg_catalog.unnest(p.polroles) WITH ORDINALITY AS u(r, n)),
         'using', pg_catalog.pg_get_expr(p.polqual, p.polrelid), 'check', pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid))
    FROM pg_catalog.pg_policy p
  UNION ALL
  SELECT 'statistics', pg_catalog.format('%s.%I', s.stxnamespace::regnamespace, s.stxname), s.stxrelid,
         pg_catalog.jsonb_build_object('definition', pg_catalog.pg_get_statisticsobjdef(s.oid), 'owner', pg_catalog.pg_get_userbyid(s.stxowner),
         'target', CASE WHEN (pg_catalog.to_jsonb(s) ->> 'stxstattarget')::int >= 0 THEN pg_catalog.to_jsonb(s) -> 'stxstattarget' END)
    FROM pg_catalog.pg_statistic_ext s
) o JOIN pg_catalog.pg_class c ON c.oid = o.relation JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^(pg_|pgshadow|information_schema$)'
