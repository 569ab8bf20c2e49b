package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kortti-id/kortti/server"
	"github.com/kortti-id/kortti/server/database"
	"github.com/kortti-id/kortti/server/session"
	"github.com/kortti-id/kortti/server/users"
)

// runUsers works on the database directly, beside a running server or without.
func runUsers(ctx context.Context, args []string, out io.Writer) error {
	l, err := parse(args)
	if err != nil {
		return err
	}
	if len(l.args) == 0 {
		return errUsage("say what to do with users: list, approve, deactivate or roles")
	}
	command, who := l.args[0], l.args[1:]
	switch {
	case command == "list" && len(who) == 0:
	case (command == "approve" || command == "deactivate") && len(who) == 1:
	case command == "roles" && len(who) > 0:
	default:
		return errUsage(fmt.Sprintf("users %s is not understood", strings.Join(l.args, " ")))
	}
	config, err := server.Load(l.file)
	if err != nil {
		return err
	}
	db, err := database.OpenExisting(ctx, config.Users.Store)
	if err != nil {
		return err
	}
	return errors.Join(change(ctx, db, config, command, who, l.json, out), db.Close())
}

func change(ctx context.Context, db *database.DB, config server.Config, command string, who []string, asJSON bool, out io.Writer) error {
	store := users.New(db, time.Now)
	var u users.User
	var err error
	switch command {
	case "list":
		list, err := store.List(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return listJSON(list, out)
		}
		return listTable(list, out)
	case "approve":
		u, err = store.Approve(ctx, who[0])
	case "deactivate":
		u, err = deactivate(ctx, db, store, config, who[0])
	case "roles":
		u, err = store.SetRoles(ctx, who[0], who[1:])
	}
	if err != nil {
		return err
	}
	state := "inactive"
	if u.Active {
		state = "active"
	}
	_, err = fmt.Fprintf(out, "%s (%s) is %s, roles: [%s]\n", u.Username, u.Name(), state, strings.Join(u.Roles, " "))
	return err
}

func deactivate(ctx context.Context, db *database.DB, store *users.Store, config server.Config, who string) (users.User, error) {
	limits := session.Limits{Idle: time.Duration(config.Session.Idle), Absolute: time.Duration(config.Session.Absolute)}
	sessions, err := session.New(db, limits, time.Now)
	if err != nil {
		return users.User{}, err
	}
	u, err := store.Deactivate(ctx, who)
	if err != nil {
		return users.User{}, err
	}
	return u, sessions.EndUser(ctx, u.ID)
}

func listJSON(list []users.User, out io.Writer) error {
	type row struct {
		Key       string    `json:"key"`
		Username  string    `json:"username"`
		FirstName string    `json:"first_name"`
		LastName  string    `json:"last_name"`
		Email     string    `json:"email"`
		IsActive  bool      `json:"is_active"`
		Roles     []string  `json:"roles"`
		Created   time.Time `json:"created"`
		LastSeen  time.Time `json:"last_seen"`
	}
	rows := []row{}
	for _, u := range list {
		rows = append(rows, row{
			u.Key, u.Username, u.FirstName, u.LastName, u.Email, u.Active,
			append([]string{}, u.Roles...), u.Created, u.LastSeen,
		})
	}
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(rows)
}

func listTable(list []users.User, out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "STATE\tUSER\tNAME\tROLES\tLAST SEEN\tKEY")
	for _, u := range list {
		state := "waiting"
		if u.Active {
			state = "active"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", state, u.Username, u.Name(),
			strings.Join(u.Roles, " "), u.LastSeen.Local().Format("2006-01-02 15:04"), u.Key)
	}
	return table.Flush() // keeps the first error of the writes before
}
