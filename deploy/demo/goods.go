// The demo's goods service: HTTPS in front of MariaDB.
package main

import (
	"database/sql"
	"encoding/json"
	"errors"
	"log"
	"net/http"
	"os"
	"strings"

	_ "github.com/go-sql-driver/mysql"
)

type item struct {
	ID    int     `json:"id"`
	Name  string  `json:"name"`
	Price float64 `json:"price"`
}

type shop struct{ db *sql.DB }

func (s shop) category(r *http.Request) (int, any, error) {
	rows, err := s.db.QueryContext(r.Context(), "SELECT id, name, price FROM items WHERE category = ? ORDER BY id", r.FormValue("category"))
	if err != nil {
		return 0, nil, err
	}
	defer rows.Close()
	items := []item{}
	for rows.Next() {
		var i item
		if err := rows.Scan(&i.ID, &i.Name, &i.Price); err != nil {
			return 0, nil, err
		}
		items = append(items, i)
	}
	return http.StatusOK, items, rows.Err()
}

func (s shop) one(r *http.Request) (int, any, error) {
	var i item
	row := s.db.QueryRowContext(r.Context(), "SELECT id, name, price FROM items WHERE id = ?", last(r))
	if err := row.Scan(&i.ID, &i.Name, &i.Price); err != nil {
		return 0, nil, err
	}
	return http.StatusOK, i, nil
}

func (s shop) left(r *http.Request) (int, any, error) {
	var left struct {
		Stock int `json:"stock"`
	}
	row := s.db.QueryRowContext(r.Context(), "SELECT stock FROM items WHERE id = ?", last(r))
	return http.StatusOK, &left, row.Scan(&left.Stock)
}

func (s shop) order(r *http.Request) (int, any, error) {
	var wish struct{ Item, Amount int }
	if err := json.NewDecoder(r.Body).Decode(&wish); err != nil {
		return 0, nil, err
	}
	change, err := s.db.BeginTx(r.Context(), nil)
	if err != nil {
		return 0, nil, err
	}
	defer change.Rollback()
	if _, err := change.Exec("INSERT INTO orders (item, amount) VALUES (?, ?)", wish.Item, wish.Amount); err != nil {
		return 0, nil, err
	}
	if _, err := change.Exec("UPDATE items SET stock = stock - ? WHERE id = ?", wish.Amount, wish.Item); err != nil {
		return 0, nil, err
	}
	return http.StatusCreated, map[string]any{}, change.Commit()
}

func (s shop) report(r *http.Request) (int, any, error) {
	rows, err := s.db.QueryContext(r.Context(), "SELECT category, SUM(price * stock), SLEEP(0.03) FROM items GROUP BY category")
	if err != nil {
		return 0, nil, err
	}
	defer rows.Close()
	worth := map[int]float64{}
	for rows.Next() {
		var category, slept int
		var sum float64
		if err := rows.Scan(&category, &sum, &slept); err != nil {
			return 0, nil, err
		}
		worth[category] = sum
	}
	return http.StatusOK, worth, rows.Err()
}

func (s shop) coupons(r *http.Request) (int, any, error) {
	var code string
	return http.StatusOK, &code, s.db.QueryRowContext(r.Context(), "SELECT code FROM coupons").Scan(&code)
}

func last(r *http.Request) string {
	return r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
}

func answers(handle func(*http.Request) (int, any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		status, answer, err := handle(r)
		if errors.Is(err, sql.ErrNoRows) {
			status, answer = http.StatusNotFound, map[string]string{"error": "there is no such item"}
		} else if err != nil {
			status, answer = http.StatusInternalServerError, map[string]string{"error": err.Error()}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(answer)
	}
}

func main() {
	db, err := sql.Open("mysql", "shop:shop@tcp(db.demo:3306)/shop?interpolateParams=true")
	if err != nil {
		log.Fatal(err)
	}
	db.SetMaxIdleConns(16)
	s := shop{db}
	http.HandleFunc("/goods", answers(s.category))
	http.HandleFunc("/goods/", answers(s.one))
	http.HandleFunc("/left/", answers(s.left))
	http.HandleFunc("/orders", answers(s.order))
	http.HandleFunc("/report", answers(s.report))
	http.HandleFunc("/coupons", answers(s.coupons))
	log.Fatal(http.ListenAndServeTLS(":8443", os.Args[1], os.Args[2], nil))
}
