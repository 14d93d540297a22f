"""Shares out checks among volunteers over WebSocket; Postgres keeps every result, once.

The way in, for whoever reads or changes the program.  `protocol.md` says what can be seen from outside.

The packages
------------
Upper ones import lower ones, never the other way round (import-linter checks it)::

    cli                     the commands
    processes  app          one node or several (`service_manager.py` tells systemd); a node opens, drains, closes
    assembly                the one place where the parts of a node are joined
    prepare  backups  upgrades  the database made ready; saved and restored; a newer Postgres
    embedded                the Postgres that the program brings
    address_file            the file by which commands find the server
    serve                   sockets: three channels, plain HTTP, limits, drain
    admin                   the requests of admins: a file for each noun, a method for each verb
    stats                   what is shown of the work: topics, tables, rows, metrics, history
    flow                    the steps of the work: ask, claim, submit, release, build, expire
    observe                 what the flow tells: events, histograms, rules of health, logs
    wire | store | services messages | SQL | kinds of checks; none of them knows another
    config  model  errors   settings, terms as types, the tree of errors; and `keys`, which says what a key is

    client                  the volunteers' library and daemon; imports `wire` and nothing of the server
    dashboard               the page; its source is TypeScript

Nearly every part of a node takes `flow/core.py: Core` first; what it needs besides is an argument of its own.

Paths
-----
Hello → `welcome`
    `serve/client_channel.py: ClientSession._hello` → `flow/membership.py: Memberships.hello` → `flow/arrivals.py:
    Arrivals.add` (joins the next group of hellos) → `store/clients.py: read` and `begin_sessions` (one statement each
    for all of the group)

Ask → push
    `serve/connection.py: PeerConnection.frames` → `serve/channel.py: ChannelSession.take` (decode, admit, call) →
    `serve/client_channel.py: ClientSession._ask` → `flow/asks.py: Asks.ask` (how many it may get) →
    `flow/dispatcher.py: Dispatcher.ask` (a ticket in `flow/demand_queue.py: DemandQueue`, and a
    `flow/first_look.py: FirstLook` by which its answer tells why the rest does not come) →
    `flow/dispatcher.py: Dispatcher._serve` → `store/claims.py: claim` (one statement for all that wait) →
    `flow/claimer.py: Claimer._hand_out` → `flow/delivery.py: Delivery.push`

Submit → COPY → `stored`
    `serve/client_channel.py: ClientSession._begin_submit` → `flow/intake.py: Intake.submit` (checks, in the order of
    the protocol) → `flow/commits.py: Commits.add` (joins the next group commit; in a transaction of its own, with what
    its plugin keeps and the items that it shows, `flow/discoveries.py: Discoveries`) → `store/results.py: settle`
    (claims checked, results copied by `store/result_copy.py: copy_results`) → after the commit `Intake.submit` answers

An item → its result, in a volunteer's daemon
    `client/held_buckets.py: HeldBuckets.pushed` → `client/bucket_stream.py: BucketStream.deliver` →
    `client/daemon.py: Daemon._check` → `client/service_work.py: ServiceWork.result_of` (a function, or
    `client/checker_program.py: CheckerProgram`; over which item that dies: `client/crash_suspects.py: CrashSuspects`) →
    `client/held_bucket.py: HeldBucket.settle` → `client/spool.py: Spool` (on disk) → `HeldBuckets.send_due`; what the
    outside API's answers mean is in `client/x_answers.py`, how many requests it still takes in
    `client/allowance.py: Allowance`, when checks may begin in `client/upstream_pause.py: UpstreamPause`; `work --check`
    looks at all of that beforehand, by `client/preflight.py`

Disconnect → free
    `serve/client_channel.py: ClientSession.run`, its `finally` → `flow/release.py: Releases.end_session` →
    `store/claims.py: release_session` (one statement) → `flow/signals.py: Signals.work` wakes the dispatchers of all
    nodes

An admin's request
    `serve/admin_channel.py: AdminSession.step_for` → the table of `admin/__init__.py: join_steps` → a method such as
    `admin/items.py: ItemRequests.add` → `admin/item_adder.py: ItemAdder.add` → a function such as
    `store/adding.py: add` → the typed answer in `wire/admin/items.py: ItemsAdded`;
    `serve/admin_channel.py: AdminSession.note` writes the activity log

A file of items → the catalogue
    `cli/item_import.py: import_items` → `cli/item_file.py: ItemFile` (records; where nothing is quoted, by whole
    blocks of `cli/line_reader.py: LineReader`; which column is the key is found by `cli/csv_columns.py: Columns`) →
    some `item.add` at a time → `admin/item_adder.py: ItemAdder.add`, which first believes that all of many are new:
    `store/adding.py: add_new`

Who settled most → the leaderboard, a volunteer's page, the public page
    `flow/client_counters.py: ClientCounters.flush` → `store/boards.py: add_days` (`fold_days` moves days that are over
    into weeks and months) → `stats/boards.py: Boards.of`, read once for all who look → `stats/progress.py:
    ProgressReport.get` (what everybody is told) → `serve/progress_pages.py: ProgressPages.get`

A change → all nodes
    `admin/services.py: ServiceRequests.configure` → `flow/signals.py: Signals.tell` (at once here, elsewhere by NOTIFY)
    → `serve/change_listener.py: ChangeListener` → `flow/catalogue.py: Catalogue.load` → the push `service`; a signal
    that is lost is made good by `flow/catalogue_fill.py: CatalogueFill.run`, which reads the services each second

A message of the operator → volunteers
    `admin/notices.py: NoticeRequests.send` → `store/notices.py: send` → `flow/signals.py: Signals.tell` → on each node
    `serve/change_listener.py: ChangeListener` → `flow/notices.py: Notices.refresh`; those in force go into `welcome` by
    `Notices.begin`, and to whoever joins a service by `Notices.tell_client`; a daemon shows them by
    `client/notice_board.py: NoticeBoard`

A lease is lost → the node ends
    `flow/lease.py: Lease.run` → `app.py: Node` → `serve/listener.py: Listener.cut_off_clients`; the other nodes free
    what it held, in their `flow/lease.py: Lease.run`

A backup → a database in which nothing of before is accepted
    `cli/backup.py: restore` → `backups.py: restore` → `embedded/archive.py: load` (`pg_restore` into `psql`, one
    transaction) → `store/fence.py: raise_fence` (numbers beyond all, what was held is free); the start of every node
    asks `store/fence.py: check_sequences`

A figure → dashboard
    `flow/client_counters.py: ClientCounters.stored` counts in memory → `stats/recorder.py: Recorder.write`, once a
    second → `store/history.py: add` → `stats/throughput.py: Throughput.refresh`, while somebody watches →
    `stats/topics.py: Topics.overview` → `serve/feeds.py: Feed._compute` (one encoding for all viewers) →
    `dashboard/source/src/connection.ts` → a page

Rules that stand in one place
-----------------------------
states of a bucket          `flow/life.py`, carried out by the SQL of `store/`
when a session may say what `wire/session.py`
which keys are the same     `keys.py`; the form is chosen when the database is made: `store/key_form.py`
whose turn it is            `flow/demand_queue.py`; between nodes: `flow/longest_waits.py`
what a client may hold      the function `may_hold` in `store/migrations/0001_schema.sql`, checked by every claim;
                            `flow/hold_limits.py` of one ask, by its health: `observe/health.py: limits`
why a client waits          `flow/wait_reasons.py`, from most to least pressing, by the facts of `store/waits.py`;
                            `flow/wait_teller.py` tells clients, `flow/wait_view.py` admins and onlookers; when it is
                            looked at again: `flow/demand_queue.py`
what a client does now      `flow/doing.py`
what giving back costs      the function `free_buckets` in `store/migrations/0001_schema.sql`, by whatever way
what is known of a person   `store/personal_data.py`, which also erases it
which programs get work     `flow/allowed_agents.py`, by the settings of each service
what requests cost          `serve/costs.py`, to the client and to its block of addresses
what a peer may use up      `serve/limits.py`; `serve/connection.py` and `serve/pinger.py` for what it does not read
what ends a claim           `store/claims.py: EndReason`
where plugins run           `flow/plugin_runner.py`: the built-in ones in the node, others in `flow/plugin_processes.py`
what a schema may cost      `services/schema_bounds.py`
what a fault stops         `flow/round_steps.py` within a round of a part, `flow/supervisor.py` of a part
which errors are waited out `store/faults.py`; how connections are made and replaced: `store/connecting.py`
where a pool begins         `flow/pool_fronts.py`, found by `store/fronts.py`
time that does not count    the functions `note_round` and `counted_since` in `store/migrations/0001_schema.sql`
which host, which origin    `serve/access.py`; which certificate is shown: `serve/certificate.py`
which way a client goes out `client/proxies.py`, for its session and for its checkers

Glossary
--------
item        one thing to check, such as an account; `key` is its name for people
service     a kind of check, made of a plugin and settings
client      a volunteer's identity; `membership`: the client in a service
session     one connection of a client
bucket      about 180 items of one service, handed out together: `ready`, `claimed`, `dead`, `done`
claim       one handing-out of a bucket; its number grows, and everything sent with an older one is refused
settled     of an item: a result came through a claim and is stored
waiting     of an item: it is in no bucket yet
rank        when an item waits since, less the head start of its priority; older ranks go first
pool        the ready buckets of a service; the builder keeps it filled
ticket      one bucket that a session asked for
twin        an item that is in two open buckets, after it was prioritised
boot        one start of one node; its lease tells others that it is alive
health      how a client's work in a service is judged: `ok`, `watched`, `flagged`

To add …, touch
---------------
a service           a package of your own; `services/example/` is one, `services/contract.py` describes the hooks;
                    `flow/plugin_search.py` finds one that is installed while a node runs
a command           a function in `cli/`, its line in `cli/command_tree.py`; what only it needs it imports itself
an admin's list     its columns that matter most: the table in `cli/output.py`; how tables fit: `cli/tables.py`
a client message    `wire/client.py` (types and `ANSWERS`), `wire/session.py` (when it is legal, and whether only for
                    registered clients), `serve/client_channel.py` (a method and its line in `ANSWERS`; if it frees
                    buckets, also `WAITS_FOR_SUBMITS`), a step in `flow/`; what a client says of itself is in
                    `flow/membership.py`; a method in `client/library.py` if volunteers need it
a push              `wire/client.py` (type and `PUSHES`), `holder.push` in `flow/`, `client/` (what a client does on it)
an admin request    `wire/admin/<noun>.py` (types and `ANSWERS`; `ADMIN_ONLY`, else operators may do it),
                    `admin/<noun>.py` (a method named as the verb, and its line in `steps`), perhaps a function in
                    `store/`; the command comes by itself, words for a new field are in `cli/help_texts.py`, and
                    commands to be confirmed in `cli/requests.py`
a noun of admins    besides: `wire/admin/__init__.py`, `assembly.py`, `cli/help_texts.py`
a statistic         a statement in `store/`, a field in `wire/stats.py` and in `dashboard/source/src/wire.ts`, a page;
                    `stats/rows.py` fills fields from columns of the same name
a metric            `stats/metrics.py`; one of the whole coordinator is named in `deploy/README.md`
a setting           `config.py`, and where it is read (parts have it as `core.settings`; one that SIGHUP changes is in
                    `RELOADED`, and read from `core.state.settings`); flag, variable and `coordinator config` come by
                    themselves
a service's setting `model.py: ServiceSettings`, its bounds in `services/settings.py: OfEveryService`
an answer of the API a row of `client/x_answers.py`; what goes wrong there is a switch of `standin_troubles.py`
a table             `store/migrations/`, a function with its statement in `store/`, its bound in `deploy/README.md`;
                    what strangers make grow is deleted by `store/pruning.py`, each minute, by `flow/pruner.py`
a part that runs    a class with `run()`, joined and named in `assembly.py: Parts.runs`

Messages, requests and statistics are told in `protocol.md` too, and tests hold that; the settings of a node are told by
`coordinator serve --help`, the metrics by `/metrics`.
"""

__version__ = "0.1.0"
