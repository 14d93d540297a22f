import { useState } from "preact/hooks";
import { useAdminRows } from "../admin_rows";
import { Badge, Card, Empty, NeedsRole, Name, TimeAgo } from "../components";
import { useApp, useNow } from "../context";
import { OperationButton, useHasRole } from "../dialog";
import { count } from "../format";
import { operate } from "../operation";
import { PageHead } from "../page_head";
import { type Column, Pager, TableView, usePagePosition } from "../table";

const TOKENS_PER_PAGE = 100;
const ROLES = ["enrolment", "viewer", "operator", "admin"];
const DAY_SECONDS = 86_400;

interface Token {
  token_id: string;
  role: string;
  label: string;
  created_at: string;
  expires_at: string | null;
  uses_left: number | null;
  revoked: boolean;
}

/** The tokens, without themselves; a new one is shown this once. */
export function TokensPage() {
  const admin = useHasRole("admin");
  return (
    <>
      <PageHead title="Tokens" lead="What lets people and programs in. A token is shown once, when it is made." />
      {admin ? (
        <TokenCards />
      ) : (
        <NeedsRole role="admin" />
      )}
    </>
  );
}

function TokenCards() {
  const position = usePagePosition();
  const now = useNow();
  const loaded = useAdminRows<Token>("token.list", {
    limit: TOKENS_PER_PAGE,
    ...(position.after === null ? {} : { after: position.after }),
  });

  const columns: Column<Token>[] = [
    { title: "Label", cell: ({ label, token_id }) => <Name text={label || token_id} title={`${label} (${token_id})`} /> },
    { title: "Role", cell: ({ role }) => role },
    { title: "State", cell: (token) => <Badge word={stateOf(token, now)} /> },
    { title: "Made", cell: ({ created_at }) => <TimeAgo time={created_at} now={now} /> },
    { title: "Uses left", numeric: true, cell: ({ uses_left }) => (uses_left === null ? "any" : count(uses_left)) },
    {
      title: "Ends",
      numeric: true,
      cell: ({ expires_at }) => (expires_at === null ? "never" : <TimeAgo time={expires_at} now={now} />),
    },
    { title: "Operation", cell: (token) => !token.revoked && <RevokeButton token={token} onDone={loaded.reload} /> },
  ];
  return (
    <>
      <NewToken onDone={loaded.reload} />
      <section class="card" aria-label="Tokens">
        <TableView
          caption="Tokens"
          columns={columns}
          loaded={loaded}
          rowKey={({ token_id }) => token_id}
          empty={<Empty title="There is no token." />}
        />
        <Pager position={position} loaded={loaded} rowsPerPage={TOKENS_PER_PAGE} />
      </section>
    </>
  );
}

function stateOf({ revoked, expires_at, uses_left }: Token, now: number): string {
  if (revoked) return "revoked";
  if (expires_at !== null && Date.parse(expires_at) <= now) return "expired";
  return uses_left === 0 ? "used up" : "active";
}

function RevokeButton({ token, onDone }: { token: Token; onDone(): void }) {
  return (
    <OperationButton
      onDone={onDone}
      action={{
        label: "Revoke",
        operation: { type: "token.revoke", fields: { token_id: token.token_id } },
        effect: `Whoever uses ${token.label || token.token_id} is closed out within five seconds, for good.`,
        doneText: () => `${token.label || token.token_id} is revoked.`,
        requiredRole: "admin",
        shownState: String(token.revoked),
        danger: true,
      }}
    />
  );
}

function NewToken({ onDone }: { onDone(): void }) {
  const { preferences } = useApp();
  const [role, setRole] = useState("enrolment");
  const [label, setLabel] = useState("");
  const [days, setDays] = useState("");
  const [uses, setUses] = useState("");
  const [made, setMade] = useState<string | null>(null);
  const [fault, setFault] = useState<string | null>(null);

  const issue = async (): Promise<void> => {
    setFault(null);
    const fields = {
      role,
      label: label.trim(),
      ...(days ? { expires_in: Number(days) * DAY_SECONDS } : {}),
      ...(uses && role === "enrolment" ? { uses: Number(uses) } : {}),
    };
    try {
      const answer = await operate(preferences.token.value ?? "", { type: "token.issue", fields });
      setMade(String(answer.token));
      setLabel("");
      onDone();
    } catch (failure) {
      setFault(failure instanceof Error ? failure.message : String(failure));
    }
  };

  return (
    <Card title="A new token">
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          void issue();
        }}
      >
        <div class="filters">
          <label class="field">
            <span>Role</span>
            <select value={role} onChange={(event) => setRole(event.currentTarget.value)}>
              {ROLES.map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          </label>
          <label class="field">
            <span>Label (for whom it is)</span>
            <input
              required
              maxLength={200}
              value={label}
              onInput={(event) => setLabel(event.currentTarget.value)}
            />
          </label>
          <label class="field">
            <span>Days (empty: for good)</span>
            <input type="number" min={1} value={days} onInput={(event) => setDays(event.currentTarget.value)} />
          </label>
          {role === "enrolment" && (
            <label class="field">
              <span>Uses (empty: any)</span>
              <input type="number" min={1} value={uses} onInput={(event) => setUses(event.currentTarget.value)} />
            </label>
          )}
        </div>
        <div class="buttons">
          <button type="submit" class="primary">
            Make the token
          </button>
        </div>
      </form>
      {fault !== null && (
        <p class="refusal" role="alert">
          {fault}
        </p>
      )}
      {made !== null && (
        <div class="made-token" role="status">
          <p>Copy it now: it is not shown again.</p>
          <code>{made}</code>
          <button type="button" onClick={() => setMade(null)}>
            I have it
          </button>
        </div>
      )}
    </Card>
  );
}
