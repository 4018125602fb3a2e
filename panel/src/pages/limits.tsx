/** How much of their limits clients have used. */
import type { Limits } from "../api/types";
import { Countdown } from "../ui/bits";
import { count } from "../lib/format";

export function ClientLimits({ clients }: { clients: Limits["clients"] }) {
  const rows = clients.flatMap((client) =>
    client.limits.map((limit) => ({ ...limit, client: client.label || client.client })),
  );
  if (rows.length === 0) return null;
  return (
    <section class="card" aria-labelledby="limits">
      <h2 id="limits">Limits of clients</h2>
      <table class="stacking">
        <thead>
          <tr>
            <th scope="col">Client</th>
            <th scope="col">Limit</th>
            <th scope="col">Used</th>
            <th scope="col">Starts anew in</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={`${row.client} ${row.limit}`}>
              <th scope="row">{row.client}</th>
              <td data-label="Limit">{row.limit}</td>
              <td data-label="Used">
                <meter
                  aria-hidden="true"
                  min={0}
                  max={Math.max(1, row.allowed)}
                  high={row.allowed * 0.8}
                  value={row.used}
                />{" "}
                {count(row.used)} of {count(row.allowed)}
              </td>
              <td data-label="Starts anew in">
                {row["resets-at"] === null ? "never" : <Countdown until={row["resets-at"]} />}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
